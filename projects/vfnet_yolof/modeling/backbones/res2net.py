"""Res2Net (Gao et al., 2019) in its variant v1d: a deep stem and pooled shortcuts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn
from torch.nn import functional as F

from .norms import norm_factory
from .resnet import DEFORM_CONVS, NUM_BLOCKS, deform_keys, fpn_from_keys

Norm = Callable[[int], nn.Module]
Conv = Callable[..., nn.Module]


class DeepStem(CNNBlockBase):
    """Three 3x3 convolutions, the first with stride 2, and max pooling: stride 4 in all."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm) -> None:
        super().__init__(in_channels, out_channels, 4)
        half = out_channels // 2
        self.conv1 = _conv_norm(in_channels, half, 3, norm, stride=2)
        self.conv2 = _conv_norm(half, half, 3, norm)
        self.conv3 = _conv_norm(half, out_channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, ``in_channels``, H, W) -> (N, ``out_channels``, H / 4, W / 4)."""
        return F.max_pool2d(self.conv3(self.conv2(self.conv1(x))), 3, stride=2, padding=1)


class Res2Block(CNNBlockBase):
    """Bottleneck whose 3x3 convolution is split into a hierarchy (paper, section 3.1).

    The channels after the first 1x1 convolution are split into ``scales`` parts. Each part but the
    last is convolved, together with the result of the part before it; the last one passes.

    Args:
        in_channels, out_channels: of the block.
        width: channels of each part.
        scales: number of parts, at least 2.
        stride: of the block.
        norm: makes the normalisation layers.
        conv: makes the 3x3 convolutions, plain or deformable.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        scales: int,
        stride: int = 1,
        norm: Norm,
        conv: Conv = Conv2d,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        if scales < 2:
            raise ValueError(f"scales must be at least 2, got {scales}")
        self.width = width
        self.conv1 = _conv_norm(in_channels, width * scales, 1, norm)
        self.convs = nn.ModuleList(
            _conv_norm(width, width, 3, norm, stride=stride, conv=conv) for _ in range(scales - 1)
        )
        self.conv3 = _conv_norm(width * scales, out_channels, 1, norm, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, ``in_channels``, H, W) -> (N, ``out_channels``, H / stride, W / stride)."""
        parts = self.conv1(x).split(self.width, dim=1)
        out = self.conv3(torch.cat(self._convolve(parts), dim=1))
        return F.relu_(out + self._identity(x))

    def _convolve(self, parts: Sequence[Tensor]) -> list[Tensor]:
        results: list[Tensor] = []
        for conv, part in zip(self.convs, parts, strict=False):  # the last part passes
            results.append(conv(results[-1] + part if results else part))
        return [*results, parts[-1]]

    def _identity(self, x: Tensor) -> Tensor:
        return x


class FirstRes2Block(Res2Block):
    """First block of a stage: its parts are convolved on their own, its shortcut is pooled.

    With a stride there is no previous result of the right size, so the hierarchy is left out (in
    the first stage, too), and the last part is averaged over 3x3 cells. The Res2Net authors average
    it in the first stage as well; MMDetection, whose detectors' weights are meant, does not.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm, **options: Any) -> None:
        super().__init__(in_channels, out_channels, norm=norm, **options)
        self.shortcut = _conv_norm(in_channels, out_channels, 1, norm, activation=None)

    def _convolve(self, parts: Sequence[Tensor]) -> list[Tensor]:
        last = parts[-1]
        if self.stride > 1:
            last = F.avg_pool2d(last, 3, self.stride, padding=1)
        return [*(conv(part) for conv, part in zip(self.convs, parts, strict=False)), last]

    def _identity(self, x: Tensor) -> Tensor:
        # Ceiling, so that odd maps get the size that the padded 3x3 convolution gives.
        pooled = F.avg_pool2d(x, self.stride, ceil_mode=True, count_include_pad=False)
        return self.shortcut(pooled)


def build_res2net(
    depth: int = 101,
    *,
    base_width: int = 26,
    scales: int = 4,
    norm: str = "StaticBN",
    freeze_at: int = 2,
    stem_channels: int = 64,
    res2_channels: int = 256,
    deform_stages: Sequence[int] = (),
    deform_version: int = 2,
    in_channels: int = 3,
    out_features: Sequence[str] = ("res3", "res4", "res5"),
) -> ResNet:
    """Res2Net v1d; 101 layers, 26w x 4s by default, as VFNet and VFNet-X use it.

    Args:
        depth: 50, 101 or 152.
        base_width: channels of one part in a stage whose ordinary bottleneck has 64.
        scales: parts of each bottleneck.
        norm: as of :func:`~.norms.norm_factory`.
        freeze_at: 1 freezes the stem, 2 the stem and the first stage, and so on.
        stem_channels, res2_channels: widths of the stem and the first stage; every stage doubles.
        deform_stages: stages of 2..5 whose 3x3 convolutions are deformable.
        deform_version: 1 (DCN) or 2 (DCNv2, modulated).
        in_channels: channels of the images.
        out_features: stages to return, of ``stem``, ``res2`` ... ``res5``.

    Raises:
        ValueError: a depth without bottlenecks, or fewer than two parts.
    """
    if depth not in (50, 101, 152):
        raise ValueError(f"depth must be 50, 101 or 152, got {depth}")
    norm_layer = norm_factory(norm)
    stages = []
    channels, out_channels = stem_channels, res2_channels
    for stage, num_blocks in enumerate(NUM_BLOCKS[depth], start=2):
        options: dict[str, Any] = {
            "width": out_channels // 4 * base_width // 64,
            "scales": scales,
            "norm": norm_layer,
            "conv": DEFORM_CONVS[deform_version] if stage in deform_stages else Conv2d,
        }
        stride = 1 if stage == 2 else 2
        blocks: list[CNNBlockBase] = [
            FirstRes2Block(channels, out_channels, stride=stride, **options)
        ]
        blocks += [Res2Block(out_channels, out_channels, **options) for _ in range(num_blocks - 1)]
        stages.append(blocks)
        channels, out_channels = out_channels, out_channels * 2
    stem = DeepStem(in_channels, stem_channels, norm=norm_layer)
    return ResNet(stem, stages, out_features=list(out_features), freeze_at=freeze_at)


def res2net_from_keys(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """:func:`build_res2net` with the yacs keys ``MODEL.RES2NET`` and Detectron2's ``RESNETS``.

    Of ``MODEL.RESNETS`` those count that a Res2Net has too: depth, norm, widths of stem and first
    stage, ``DEFORM_*`` and ``OUT_FEATURES``.
    """
    keys = cfg.MODEL.RESNETS
    return build_res2net(
        keys.DEPTH,
        base_width=cfg.MODEL.RES2NET.BASE_WIDTH,
        scales=cfg.MODEL.RES2NET.SCALES,
        norm=keys.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        stem_channels=keys.STEM_OUT_CHANNELS,
        res2_channels=keys.RES2_OUT_CHANNELS,
        **deform_keys(cfg),
        in_channels=input_shape.channels,
        out_features=keys.OUT_FEATURES,
    )


@BACKBONE_REGISTRY.register()
def build_vfnet_yolof_res2net_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Res2Net and FPN P3-P7 from yacs keys, as in VFNet's largest models."""
    return fpn_from_keys(cfg, res2net_from_keys(cfg, input_shape), LastLevelP6P7)


def _conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: Norm,
    *,
    stride: int = 1,
    activation: Callable[[Tensor], Tensor] | None = F.relu_,
    conv: Conv = Conv2d,
) -> nn.Module:
    layer = conv(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=False,
        norm=norm(out_channels),
        activation=activation,
    )
    c2_msra_fill(layer)
    return layer
