"""The head of FCOS+ATSS: what VFNet is without its three components."""

from collections.abc import Sequence

from torch import Tensor, nn

from ...layers.conv import Scale, bias_for_prior, conv_tower, prediction_conv
from .predictions import PointPredictions


class PointHead(nn.Module):
    """Class scores and one box for each location (FCOS, section 3.1).

    Args:
        in_channels: channels of the pyramid's feature maps.
        num_classes: K.
        conv_channels, num_convs: width and depth of the two towers (256 and 4 in FCOS).
        strides: pixels per feature cell of each level; distances are ``exp(x) * stride``.
        norm: normalisation of the towers.
        centerness: add a centerness branch on the regression tower.
        prior_prob: foreground probability at initialisation.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        num_classes: int = 80,
        conv_channels: int = 256,
        num_convs: int = 4,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        norm: str = "GN",
        centerness: bool = True,
        dcn_on_last_conv: bool = False,
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        tower = dict(norm=norm, dcn_on_last_conv=dcn_on_last_conv)
        self.cls_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)
        self.reg_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)
        self.cls_logits = prediction_conv(conv_channels, num_classes, bias_for_prior(prior_prob))
        self.reg = prediction_conv(conv_channels, 4)
        self.scales = nn.ModuleList(Scale() for _ in strides)
        self.centerness = prediction_conv(conv_channels, 1) if centerness else None

    def forward(self, features: Sequence[Tensor]) -> PointPredictions:
        """Predict on every level; ``features`` are (N, C, H, W), finest first."""
        logits, ltrb, centerness = [], [], []
        for x, scale, stride in zip(features, self.scales, self.strides, strict=True):
            reg_feature = self.reg_tower(x)
            logits.append(self.cls_logits(self.cls_tower(x)))
            ltrb.append(scale(self.reg(reg_feature)).float().exp() * stride)
            if self.centerness is not None:
                centerness.append(self.centerness(reg_feature))
        return PointPredictions(logits, ltrb, centerness=centerness or None)
