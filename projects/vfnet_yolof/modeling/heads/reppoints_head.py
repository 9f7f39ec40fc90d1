"""The head of RepPoints (section 3.3 and figure 2): points, and features sampled at them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.conv import bias_for_prior, prediction_conv
from ...layers.deform_conv import DeformConv2d
from ..representations import MomentPoints
from .gfl_head import PointPredictions, TwoTowers


class RepPointsHead(TwoTowers):
    """Nine initial points for each location, and class scores and refined points from them.

    Both deformable convolutions sample at the initial points, which are in strides, so that they
    are offsets in cells.

    Args:
        num_classes: K.
        num_convs: depth of the two towers.
        gradient_mul: share of the gradient that the sampling passes to the initial points.
        representation: of boxes by points; :class:`MomentPoints` of nine by default.
        prior_prob: foreground probability at initialisation.
        **towers: see :class:`TwoTowers`.

    Raises:
        ValueError: there are not nine points, one for each tap of a 3x3 convolution.
    """

    base: Tensor

    def __init__(
        self,
        *,
        num_classes: int = 80,
        num_convs: int = 3,
        gradient_mul: float = 0.1,
        representation: MomentPoints | None = None,
        prior_prob: float = 0.01,
        **towers: Any,
    ) -> None:
        super().__init__(num_convs=num_convs, **towers)
        self.representation = representation if representation is not None else MomentPoints()
        channels = 2 * self.representation.num_points
        if channels != 18:
            raise ValueError(f"the head samples at 9 points, got {channels // 2}")
        self.gradient_mul = gradient_mul
        width = self.conv_channels
        self.init_conv = prediction_conv(width, width)
        self.init_points = _conv1x1(width, channels)
        self.refine_conv = _sampling_conv(width)
        self.refine_points = _conv1x1(width, channels)
        self.cls_conv = _sampling_conv(width)
        self.cls_logits = _conv1x1(width, num_classes, bias_for_prior(prior_prob))
        # (y, x) of the taps that an offset of 0 stands for, in the order of the weights.
        taps = torch.cartesian_prod(torch.arange(-1.0, 2.0), torch.arange(-1.0, 2.0))
        self.register_buffer("base", taps.reshape(1, channels, 1, 1), persistent=False)

    def forward(self, features: Sequence[Tensor]) -> PointPredictions:
        """Predict on every level; ``features`` are (N, C, H, W), finest first."""
        levels = [self._forward_level(x) for x in features]
        logits, initial, refined = (list(outputs) for outputs in zip(*levels, strict=True))
        return PointPredictions(logits, refined, sides_init=initial)

    def _forward_level(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cls_feature, reg_feature = self.cls_tower(x), self.reg_tower(x)
        # Points leave half precision as other offsets do.
        initial = self.init_points(F.relu(self.init_conv(reg_feature))).float()
        fixed = initial.detach()
        offsets = (1 - self.gradient_mul) * fixed + self.gradient_mul * initial - self.base
        logits = self.cls_logits(F.relu(self.cls_conv(cls_feature, offsets)))
        moved = self.refine_points(F.relu(self.refine_conv(reg_feature, offsets)))
        return logits, initial, moved.float() + fixed


def _conv1x1(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]  # by default it has one
    return conv


def _sampling_conv(width: int) -> DeformConv2d:
    conv = DeformConv2d(width, width, kernel_size=3, padding=1, bias=False)
    nn.init.normal_(conv.weight, std=0.01)
    return conv
