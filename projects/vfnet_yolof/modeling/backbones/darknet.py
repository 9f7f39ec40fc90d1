"""CSPDarkNet (Wang et al., 2019; Bochkovskiy et al., 2020) as YOLOF's fastest models use it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec
from detectron2.modeling import Backbone
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn

from ...layers.conv import make_activation
from .norms import norm_factory

NUM_BLOCKS = {53: (1, 2, 8, 8, 4)}
# YOLOF's authors train these networks with other batch norm constants than torch's.
BN_EPS, BN_MOMENTUM = 1e-4, 0.03

Norm = Callable[[int], nn.Module]


class DarkBlock(nn.Module):
    """1x1 and 3x3 convolution, added to their input: (N, C, H, W) -> the same shape."""

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        *,
        dilation: int = 1,
        norm: Norm,
        activation: str,
    ) -> None:
        super().__init__()
        kinds: dict[str, Any] = {"norm": norm, "activation": activation}
        self.conv1 = _conv(channels, hidden_channels, 1, **kinds)
        self.conv2 = _conv(hidden_channels, channels, 3, dilation=dilation, **kinds)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class CSPStage(CNNBlockBase):
    """A stage of two routes: through the blocks, and past them (CSPNet, figure 3b).

    Args:
        in_channels, out_channels: of the stage.
        num_blocks: blocks on the one route.
        route_channels: channels of each route.
        hidden_channels: channels inside the blocks.
        stride: of the 3x3 convolution ``down`` that opens the stage.
        dilation: of all 3x3 convolutions.
        norm: makes the norm after each convolution.
        activation: as of :func:`vfnet_yolof.layers.conv.make_activation`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int,
        route_channels: int,
        hidden_channels: int,
        stride: int = 2,
        dilation: int = 1,
        norm: Norm,
        activation: str,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        kinds: dict[str, Any] = {"norm": norm, "activation": activation}
        self.down = _conv(in_channels, out_channels, 3, stride=stride, dilation=dilation, **kinds)
        self.bypass = _conv(out_channels, route_channels, 1, **kinds)
        self.entry = _conv(out_channels, route_channels, 1, **kinds)
        self.blocks = nn.Sequential(
            *(
                DarkBlock(route_channels, hidden_channels, dilation=dilation, **kinds)
                for _ in range(num_blocks)
            )
        )
        self.exit = _conv(route_channels, route_channels, 1, **kinds)
        self.fuse = _conv(2 * route_channels, out_channels, 1, **kinds)

    def forward(self, x: Tensor) -> Tensor:
        """(N, ``in_channels``, H, W) -> (N, ``out_channels``, H / stride, W / stride)."""
        x = self.down(x)
        through = self.exit(self.blocks(self.entry(x)))
        return self.fuse(torch.cat((through, self.bypass(x)), dim=1))


class DarkStem(CNNBlockBase):
    """One 3x3 convolution at full resolution."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm, activation: str) -> None:
        super().__init__(in_channels, out_channels, 1)
        self.conv = _conv(in_channels, out_channels, 3, norm=norm, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class CSPDarkNet(Backbone):
    """CSPDarkNet-53: a stem and the stages ``res1`` (stride 2) to ``res5`` (stride 32).

    Args:
        depth: 53.
        norm: as of :func:`~.norms.norm_factory`; ``"SyncBN"`` (``"naiveSyncBN"`` on the CPU) for
            several processes. Batch norms have eps 1e-4 and momentum 0.03, as in the authors' code.
        activation: ``"Mish"``, as in the authors' code, ``"LeakyReLU"`` (slope 0.1) or ``"ReLU"``.
        freeze_at: the last stage to freeze, weights and statistics: 1 is ``res1``, 2 ``res2``, and
            the stem with any of them; 0 for none. The authors' code keeps the weights up to
            ``res2`` fixed but lets the statistics of their norms move.
        res5_dilation: 2 replaces the last stage's stride by a dilation of all its 3x3
            convolutions, so that its output has stride 16 (DC5).
        stem_channels: every stage has twice the channels of the one before it.
        in_channels: channels of the images.
        out_features: what to return, of ``stem``, ``res1`` ... ``res5``.

    Raises:
        ValueError: an unknown depth, activation, stage or feature, or another dilation.
    """

    def __init__(
        self,
        depth: int = 53,
        *,
        norm: str = "BN",
        activation: str = "Mish",
        freeze_at: int = 0,
        res5_dilation: int = 1,
        stem_channels: int = 32,
        in_channels: int = 3,
        out_features: Sequence[str] = ("res5",),
    ) -> None:
        super().__init__()
        _check("depth", depth, NUM_BLOCKS)
        _check("res5_dilation", res5_dilation, (1, 2))
        kinds: dict[str, Any] = {
            "norm": norm_factory(norm, eps=BN_EPS, momentum=BN_MOMENTUM),
            "activation": activation,
        }
        self.stem = DarkStem(in_channels, stem_channels, **kinds)
        self.stage_names = []
        shapes = {"stem": ShapeSpec(channels=stem_channels, stride=1)}
        channels, stride = stem_channels, 1
        for index, num_blocks in enumerate(NUM_BLOCKS[depth], start=1):
            dilation = res5_dilation if index == 5 else 1
            # The routes of the first stage are as wide as the stage, those of others half as wide.
            stage = CSPStage(
                channels,
                2 * channels,
                num_blocks=num_blocks,
                route_channels=2 * channels if index == 1 else channels,
                hidden_channels=channels,
                stride=2 if dilation == 1 else 1,
                dilation=dilation,
                **kinds,
            )
            channels, stride = 2 * channels, stride * stage.stride
            self.stage_names.append(f"res{index}")
            self.add_module(self.stage_names[-1], stage)
            shapes[self.stage_names[-1]] = ShapeSpec(channels=channels, stride=stride)
        _check("freeze_at", freeze_at, range(len(self.stage_names) + 1))
        for feature in out_features:
            _check("out_features", feature, shapes)
        self._out_features = list(out_features)
        self._shapes = {name: shapes[name] for name in out_features}
        self._freeze(freeze_at)

    def _freeze(self, last: int) -> None:
        if last >= 1:
            for name in ("stem", *self.stage_names[:last]):
                getattr(self, name).freeze()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, ``in_channels``, H, W) -> the features of ``out_features`` by name."""
        outputs = {}
        for name in ("stem", *self.stage_names):
            x = getattr(self, name)(x)
            if name in self._out_features:
                outputs[name] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)


def cspdarknet_from_keys(cfg: CfgNode, input_shape: ShapeSpec) -> CSPDarkNet:
    """:class:`CSPDarkNet` with the yacs keys ``MODEL.DARKNET``.

    ``MODEL.BACKBONE.FREEZE_AT`` is 2 by default in Detectron2, which freezes up to ``res2``.
    """
    keys = cfg.MODEL.DARKNET
    return CSPDarkNet(
        keys.DEPTH,
        norm=keys.NORM,
        activation=keys.ACTIVATION,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        res5_dilation=keys.RES5_DILATION,
        stem_channels=keys.STEM_OUT_CHANNELS,
        in_channels=input_shape.channels,
        out_features=keys.OUT_FEATURES,
    )


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    norm: Norm,
    activation: str,
) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        bias=False,
        norm=norm(out_channels),
        activation=make_activation(activation),
    )
    c2_msra_fill(conv)
    return conv


def _check(name: str, value: object, known: Iterable[object]) -> None:
    names = list(known)
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(map(str, names))}, got {value!r}")
