"""The head of FCOS+ATSS, and of VFNet without its three components."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.conv import prediction_conv
from .predictions import PointPredictions
from .tower_head import TowerHead


class PointHead(TowerHead):
    """Class scores and one box for each location (FCOS, section 3.1).

    Args:
        reg_denom: pixels that a raw distance of exp(0) stands for on each level; the strides, as
            in FCOS, if None. VFNet's authors have 64 to 1024 here, too.
        centerness: add a centerness branch on the regression tower.
        **options: ``num_classes``, ``prior_prob`` and those of the towers, see :class:`TowerHead`.
    """

    def __init__(
        self,
        *,
        reg_denom: Sequence[float] | None = None,
        centerness: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.add_reg(4)
        self.reg_denom = self.of_each_level(self.strides if reg_denom is None else reg_denom)
        self.centerness = prediction_conv(self.conv_channels, 1) if centerness else None

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
