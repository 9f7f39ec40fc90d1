"""The head of GFL (Generalized Focal Loss, figure 4)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.conv import prediction_conv
from ..representations import GeneralDistribution
from .predictions import SidePredictions
from .tower_head import TowerHead


class GFLHead(TowerHead):
    """Joint scores of class and quality, and a representation of the four sides.

    Args:
        representation: of the box sides, see :mod:`vfnet_yolof.modeling.representations`;
            a :class:`GeneralDistribution` by default.
        quality: add a branch on the regression tower that predicts the quality of boxes apart from
            their class: the separate representations of table 1a.
        **options: ``num_classes``, ``prior_prob`` and those of the towers, see :class:`TowerHead`.
    """

    def __init__(
        self, *, representation: Any = None, quality: bool = False, **options: Any
    ) -> None:
        representation = representation if representation is not None else GeneralDistribution()
        super().__init__(**options)
        self.add_reg(4 * representation.channels)
        self.representation = representation
        self.quality = prediction_conv(self.conv_channels, 1) if quality else None

    def forward(self, features: Sequence[Tensor]) -> SidePredictions:
        """Predict on every level; ``features`` are (N, C, H, W), finest first."""
        logits, sides, quality_logits = [], [], []
        for scores, raw, reg_feature in self.levels(features):
            logits.append(scores)
            sides.append(raw)
            if self.quality is not None:
                quality_logits.append(self.quality(reg_feature))
        return SidePredictions(logits, sides, quality_logits or None)
