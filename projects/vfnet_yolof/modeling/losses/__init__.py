"""Loss functions. They know no model and no assigner."""

from .centerness import centerness_target
from .focal import FocalLoss
from .iou import aligned_iou, giou_loss
from .normalizer import each_worker_alone, synced_mean
from .varifocal import VarifocalLoss, varifocal_loss

__all__ = [
    "FocalLoss",
    "VarifocalLoss",
    "aligned_iou",
    "centerness_target",
    "each_worker_alone",
    "giou_loss",
    "synced_mean",
    "varifocal_loss",
]
