"""Two towers, and their output convolutions: what the heads of FCOS, ATSS, GFL and VFNet share."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ...layers.conv import Scale, bias_for_prior, conv_tower, prediction_conv


class TwoTowers(nn.Module):
    """A tower for the classes and one for the boxes, with the same weights on all levels.

    Args:
        in_channels: channels of the pyramid's feature maps.
        conv_channels, num_convs: width and depth of the two towers (256 and 4 in FCOS and GFL).
        strides: pixels per feature cell of each level.
        norm: normalisation of the towers.
        dcn_on_last_conv: DCNv2 as each tower's last convolution.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        conv_channels: int = 256,
        num_convs: int = 4,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        norm: str = "GN",
        dcn_on_last_conv: bool = False,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.conv_channels = conv_channels
        tower = dict(norm=norm, dcn_on_last_conv=dcn_on_last_conv)
        self.cls_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)
        self.reg_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)

    def of_each_level(self, reg_denom: Sequence[float]) -> tuple[float, ...]:
        """``reg_denom`` as floats; ValueError if there is not one for each stride."""
        if len(self.strides) != len(reg_denom):
            raise ValueError(f"strides {self.strides} and reg_denom {reg_denom} differ in length")
        return tuple(float(x) for x in reg_denom)


class TowerHead(TwoTowers):
    """Class logits, and box numbers with a learned factor for each level.

    A subclass calls :meth:`add_reg` with what its boxes are made of.

    Args:
        num_classes: K.
        prior_prob: foreground probability at initialisation.
        **towers: see :class:`TwoTowers`.
    """

    def __init__(self, *, num_classes: int = 80, prior_prob: float = 0.01, **towers: Any) -> None:
        super().__init__(**towers)
        prior = bias_for_prior(prior_prob)
        self.cls_logits = prediction_conv(self.conv_channels, num_classes, prior)

    def add_reg(self, channels: int) -> None:
        """Add the convolution that gives ``channels`` box numbers, and the levels' factors."""
        self.reg = prediction_conv(self.conv_channels, channels)
        self.scales = nn.ModuleList(Scale() for _ in self.strides)

    def levels(self, features: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each level: class logits, scaled box numbers, output of the regression tower."""
        for x, scale, _ in zip(features, self.scales, self.strides, strict=True):
            reg_feature = self.reg_tower(x)
            yield self.cls_logits(self.cls_tower(x)), scale(self.reg(reg_feature)), reg_feature
