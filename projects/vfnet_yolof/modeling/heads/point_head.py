"""The head of FCOS+ATSS, and of VFNet without its three components."""

from collections.abc import Sequence

from torch import Tensor

from ...layers.conv import prediction_conv
from .predictions import PointPredictions
from .tower_head import TowerHead


class PointHead(TowerHead):
    """Class scores and one box for each location (FCOS, section 3.1).

    Args:
        in_channels: channels of the pyramid's feature maps.
        num_classes: K.
        conv_channels, num_convs: width and depth of the two towers (256 and 4 in FCOS).
        strides: pixels per feature cell of each level.
        reg_denom: pixels that a raw distance of exp(0) stands for on each level; the strides, as
            in FCOS, if None. VFNet's authors have 64 to 1024 here, too.
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
        reg_denom: Sequence[float] | None = None,
        norm: str = "GN",
        centerness: bool = True,
        dcn_on_last_conv: bool = False,
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            conv_channels=conv_channels,
            num_convs=num_convs,
            strides=strides,
            reg_channels=4,
            norm=norm,
            dcn_on_last_conv=dcn_on_last_conv,
            prior_prob=prior_prob,
        )
        reg_denom = strides if reg_denom is None else reg_denom
        if len(strides) != len(reg_denom):
            raise ValueError(f"strides {strides} and reg_denom {reg_denom} differ in length")
        self.reg_denom = tuple(float(x) for x in reg_denom)
        self.centerness = prediction_conv(conv_channels, 1) if centerness else None

    def forward(self, features: Sequence[Tensor]) -> PointPredictions:
        """Predict on every level; ``features`` are (N, C, H, W), finest first."""
        logits, ltrb, centerness = [], [], []
        levels = self.levels(features)
        for unit, (scores, raw, reg_feature) in zip(self.reg_denom, levels, strict=True):
            logits.append(scores)
            ltrb.append(raw.float().exp() * unit)
            if self.centerness is not None:
                centerness.append(self.centerness(reg_feature))
        return PointPredictions(logits, ltrb, centerness=centerness or None)
