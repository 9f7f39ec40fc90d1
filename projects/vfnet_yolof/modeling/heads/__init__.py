"""Heads: feature maps in, raw predictions of every level out. No losses, no NMS."""

from .anchor_head import AnchorHead
from .gfl_head import GFLHead
from .point_head import PointHead
from .predictions import AnchorPredictions, PointPredictions, SidePredictions
from .vfnet_head import VFNetHead

__all__ = [
    "AnchorHead",
    "AnchorPredictions",
    "GFLHead",
    "PointHead",
    "PointPredictions",
    "SidePredictions",
    "VFNetHead",
]
