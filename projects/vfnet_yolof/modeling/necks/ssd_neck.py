"""SSD's feature maps: a normalised fine one, and ever coarser ones on top of the backbone."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import VGG16


class L2Norm(nn.Module):
    """Vectors of all channels to length 1, then a learned factor for each channel.

    (ParseNet, section 3.3, as in SSD, section 3.1.)

    Args:
        channels: number of channels. scale: initial factor.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same; in float32, since squares of half precision overflow."""
        x = x.float()
        norm = x.square().sum(1, keepdim=True).sqrt() + 1e-10
        return self.weight[:, None, None] * x / norm


class ExtraLayer(nn.Module):
    """A 1x1 convolution to half of the output's channels and one to the next level."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, out_channels // 2, 1)
        self.conv = nn.Conv2d(out_channels // 2, out_channels, kernel, stride=stride, padding=1)
        for conv in (self.reduce, self.conv):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # by default it has one

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.relu(self.reduce(x))))


class SSDNeck(Backbone):
    """Seven feature maps "f0" to "f6" (SSD512): two of the backbone, five on top of it.

    The finest is normalised by :class:`L2Norm`. A level on top has half the size of the one
    below; the last is a 4x4 convolution.

    Args:
        bottom_up: gives the finest and the second map.
        in_features: their names.
        extra_channels: of each level on top.

    Raises:
        ValueError: there are not two features.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        *,
        in_features: Sequence[str] = ("conv4_3", "fc7"),
        extra_channels: Sequence[int] = (512, 256, 256, 256, 256),
    ) -> None:
        super().__init__()
        if len(in_features) != 2:
            raise ValueError(f"SSDNeck needs two features, got {list(in_features)}")
        self.bottom_up = bottom_up
        self.in_features = list(in_features)
        fine, coarse = (bottom_up.output_shape()[name] for name in in_features)
        self.l2_norm = L2Norm(fine.channels)
        channels, strides = [fine.channels, coarse.channels], [fine.stride, coarse.stride]
        extras = []
        for number, out_channels in enumerate(extra_channels, start=1):
            is_last = number == len(extra_channels)
            kernel, stride = (4, 1) if is_last else (3, 2)
            extras.append(ExtraLayer(channels[-1], out_channels, kernel, stride))
            channels.append(out_channels)
            strides.append(strides[-1] * 2)
        self.extra = nn.ModuleList(extras)
        self._shapes = {
            f"f{i}": ShapeSpec(channels=c, stride=s)
            for i, (c, s) in enumerate(zip(channels, strides, strict=True))
        }
        self._out_features = list(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> the feature maps by name, finest first.

        Raises:
            ValueError: the image is too small for the last level.
        """
        # The last level's 4x4 convolution needs 2x2 cells, of half its stride.
        least = self._shapes[self._out_features[-1]].stride // 2
        if min(x.shape[-2:]) <= least:
            raise ValueError(
                f"SSD needs images of more than {least} pixels on both sides, got "
                f"{x.shape[-2]} x {x.shape[-1]}: resize them to 512 x 512"
            )
        below = self.bottom_up(x)
        fine, top = (below[name] for name in self.in_features)
        maps = [self.l2_norm(fine), top]
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return dict(zip(self._out_features, maps, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map."""
        return dict(self._shapes)


@BACKBONE_REGISTRY.register()
def build_vfnet_yolof_ssd_vgg16_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SSDNeck:
    """VGG16 and SSD512's feature maps; there are no keys to read."""
    return SSDNeck(VGG16())
