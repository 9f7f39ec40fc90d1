"""Heads: feature maps in, raw predictions of every level out. No losses, no NMS."""

from .anchor_head import AnchorHead, AnchorPredictions
from .gfl_head import GFLHead, PointHead, PointPredictions
from .reppoints_head import RepPointsHead
from .ssd_head import SSDHead
from .vfnet_head import VFNetHead

__all__ = [
    "AnchorHead",
    "AnchorPredictions",
    "GFLHead",
    "PointHead",
    "PointPredictions",
    "RepPointsHead",
    "SSDHead",
    "VFNetHead",
]
