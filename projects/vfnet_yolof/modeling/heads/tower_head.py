"""Two towers with one output convolution each: what the heads of FCOS, ATSS and GFL share."""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from ...layers.conv import Scale, bias_for_prior, conv_tower, prediction_conv


class TowerHead(nn.Module):
    """Class logits, and box numbers with a learned factor for each level.

    Args:
        in_channels: channels of the pyramid's feature maps.
        num_classes: K.
        conv_channels, num_convs: width and depth of the two towers.
        strides: pixels per feature cell of each level.
        reg_channels: box numbers for each location.
        norm: normalisation of the towers.
        dcn_on_last_conv: DCNv2 as each tower's last convolution.
        prior_prob: foreground probability at initialisation.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        conv_channels: int,
        num_convs: int,
        strides: Sequence[int],
        reg_channels: int,
        norm: str,
        dcn_on_last_conv: bool,
        prior_prob: float,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        tower = dict(norm=norm, dcn_on_last_conv=dcn_on_last_conv)
        self.cls_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)
        self.reg_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)
        self.cls_logits = prediction_conv(conv_channels, num_classes, bias_for_prior(prior_prob))
        self.reg = prediction_conv(conv_channels, reg_channels)
        self.scales = nn.ModuleList(Scale() for _ in strides)

    def levels(self, features: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each level: class logits, scaled box numbers, output of the regression tower."""
        for x, scale, _ in zip(features, self.scales, self.strides, strict=True):
            reg_feature = self.reg_tower(x)
            yield self.cls_logits(self.cls_tower(x)), scale(self.reg(reg_feature)), reg_feature
