"""Loss functions. They know no model and no assigner."""

from ..boxes import aligned_iou, centerness_target, giou_loss
from .box import GIoUBoxLoss, SmoothL1BoxLoss
from .classification import (
    ClassificationLoss,
    MinedCrossEntropy,
    check_no_background,
    check_nonnegative,
    check_share,
    loss_on_labels,
)
from .focal import (
    FocalLoss,
    GuidedFocalLoss,
    QualityFocalLoss,
    VarifocalLoss,
    distribution_focal_loss,
    generalized_focal_loss,
    quality_focal_loss,
    varifocal_loss,
)
from .normalizer import synced_mean

__all__ = [
    "ClassificationLoss",
    "FocalLoss",
    "GIoUBoxLoss",
    "GuidedFocalLoss",
    "MinedCrossEntropy",
    "QualityFocalLoss",
    "SmoothL1BoxLoss",
    "VarifocalLoss",
    "aligned_iou",
    "centerness_target",
    "check_no_background",
    "check_nonnegative",
    "check_share",
    "distribution_focal_loss",
    "generalized_focal_loss",
    "giou_loss",
    "loss_on_labels",
    "quality_focal_loss",
    "synced_mean",
    "varifocal_loss",
]
