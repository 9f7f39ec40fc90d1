"""Loss functions. They know no model and no assigner."""

from .box import GIoUBoxLoss, SmoothL1BoxLoss
from .centerness import centerness_target
from .checks import check_nonnegative, check_share
from .distribution_focal import distribution_focal_loss
from .focal import FocalLoss
from .guided_focal import GuidedFocalLoss
from .iou import aligned_iou, giou_loss
from .normalizer import synced_mean
from .quality_focal import QualityFocalLoss, generalized_focal_loss, quality_focal_loss
from .varifocal import VarifocalLoss, varifocal_loss

__all__ = [
    "FocalLoss",
    "GIoUBoxLoss",
    "GuidedFocalLoss",
    "QualityFocalLoss",
    "SmoothL1BoxLoss",
    "VarifocalLoss",
    "aligned_iou",
    "centerness_target",
    "check_nonnegative",
    "check_share",
    "distribution_focal_loss",
    "generalized_focal_loss",
    "giou_loss",
    "quality_focal_loss",
    "synced_mean",
    "varifocal_loss",
]
