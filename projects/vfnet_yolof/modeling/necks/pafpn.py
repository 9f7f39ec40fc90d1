"""Pyramids with a second, bottom-up path (PANet, Liu et al., 2018, section 3.1)."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.deform_conv import ModulatedDeformConvPack
from ..backbones.res2net import res2net_from_keys
from ..backbones.top_block import LastLevelP6P7Norm


class PAFPN(FPN):
    """FPN whose outputs are summed up again from fine to coarse.

    Each level gets the level below it through a 3x3 convolution with stride 2 (``pan_down``), and
    then, all but the finest, a 3x3 convolution of its own (``pan_output``). The path has no
    activations, as in MMDetection.

    Args:
        bottom_up: the backbone below.
        in_features: its features to use, finest first, each with twice the stride of the last.
        out_channels: channels of every level.
        norm: after every convolution (anything Detectron2's ``get_norm`` takes); without one the
            convolutions have biases.
        top_block: makes further levels from the outputs, as in Detectron2's FPN.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        top_block: nn.Module | None = None,
    ) -> None:
        super().__init__(bottom_up, list(in_features), out_channels, norm, top_block)
        names = self._out_features[: len(in_features)]
        self.pan_down = nn.ModuleDict(
            {name: _conv(out_channels, norm, stride=2) for name in names[1:]}
        )
        self.pan_output = self._path_outputs(names, out_channels, norm)

    def _path_outputs(self, names: Sequence[str], channels: int, norm: str) -> nn.ModuleDict:
        return nn.ModuleDict({name: _conv(channels, norm) for name in names[1:]})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) images -> levels by name, finest first; sides divisible by the strides."""
        features = self.bottom_up(x)
        merged: list[Tensor] = []  # coarsest first
        for name, lateral in zip(reversed(self.in_features), self.lateral_convs, strict=True):
            level = lateral(features[name])
            if merged:
                level = level + F.interpolate(merged[-1], scale_factor=2.0, mode="nearest")
            merged.append(level)
        outputs = [conv(y) for conv, y in zip(self.output_convs, merged, strict=True)][::-1]
        for i, down in enumerate(self.pan_down.values(), start=1):
            outputs[i] = outputs[i] + down(outputs[i - 1])
        levels = {
            name: self.pan_output[name](y) if name in self.pan_output else y
            for name, y in zip(self._out_features, outputs, strict=False)
        }
        if self.top_block is not None:
            source = self.top_block.in_feature
            extra = self.top_block(features[source] if source in features else levels[source])
            levels.update(zip(self._out_features[len(outputs) :], extra, strict=True))
        return levels


class PAFPNX(PAFPN):
    """The neck of VFNet-X: deformable output convolutions on every level, the finest included.

    It differs from :class:`PAFPN` with a norm in these outputs (DCNv2, P3 too) and in the lateral
    convolutions, which have a bias and no norm.

    Args:
        bottom_up, in_features, top_block: as of :class:`PAFPN`;
            :class:`~..backbones.LastLevelP6P7Norm` is the reference's top block.
        out_channels: channels of every level.
        norm: after every convolution but the lateral ones.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int = 384,
        norm: str = "GN",
        top_block: nn.Module | None = None,
    ) -> None:
        super().__init__(bottom_up, in_features, out_channels, norm, top_block)
        for lateral in self.lateral_convs:
            lateral.norm = None
            lateral.bias = nn.Parameter(torch.zeros(out_channels))

    def _path_outputs(self, names: Sequence[str], channels: int, norm: str) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                name: ModulatedDeformConvPack(
                    channels,
                    channels,
                    3,
                    padding=1,
                    bias=not norm,
                    norm=get_norm(norm, channels),
                )
                for name in names
            }
        )


@BACKBONE_REGISTRY.register()
def build_vfnet_yolof_res2net_pafpnx_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> PAFPNX:
    """Res2Net and the neck of VFNet-X from yacs keys; the reference has 384 channels and GN."""
    keys = cfg.MODEL.FPN
    return PAFPNX(
        res2net_from_keys(cfg, input_shape),
        keys.IN_FEATURES,
        keys.OUT_CHANNELS,
        keys.NORM,
        LastLevelP6P7Norm(keys.OUT_CHANNELS, keys.OUT_CHANNELS, norm=keys.NORM),
    )


def _conv(channels: int, norm: str, stride: int = 1) -> Conv2d:
    conv = Conv2d(
        channels,
        channels,
        3,
        stride=stride,
        padding=1,
        bias=not norm,
        norm=get_norm(norm, channels),
    )
    c2_xavier_fill(conv)
    return conv
