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
        in_channels: channels of the pyramid's feature maps.
        num_classes: K.
        conv_channels, num_convs: width and depth of the two towers (256 and 4 in the paper).
        strides: pixels per feature cell of each level.
        norm: normalisation of the towers.
        representation: of the box sides, see :mod:`vfnet_yolof.modeling.representations`;
            a :class:`GeneralDistribution` by default.
        quality: add a branch on the regression tower that predicts the quality of boxes apart from
            their class: the separate representations of table 1a.
        dcn_on_last_conv: DCNv2 as each tower's last convolution.
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
        representation: Any = None,
        quality: bool = False,
        dcn_on_last_conv: bool = False,
        prior_prob: float = 0.01,
    ) -> None:
        representation = representation if representation is not None else GeneralDistribution()
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            conv_channels=conv_channels,
            num_convs=num_convs,
            strides=strides,
            reg_channels=4 * representation.channels,
            norm=norm,
            dcn_on_last_conv=dcn_on_last_conv,
            prior_prob=prior_prob,
        )
        self.representation = representation
        self.quality = prediction_conv(conv_channels, 1) if quality else None

    def forward(self, features: Sequence[Tensor]) -> SidePredictions:
        """Predict on every level; ``features`` are (N, C, H, W), finest first."""
        logits, sides, quality = [], [], []
        for scores, raw, reg_feature in self.levels(features):
            logits.append(scores)
            sides.append(raw)
            if self.quality is not None:
                quality.append(self.quality(reg_feature))
        return SidePredictions(logits, sides, quality or None)
