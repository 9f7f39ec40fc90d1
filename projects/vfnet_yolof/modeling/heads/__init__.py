"""Heads: feature maps in, raw predictions of every level out. No losses, no NMS."""

from .gfl_head import GFLHead
from .point_head import PointHead
from .predictions import PointPredictions, SidePredictions
from .vfnet_head import VFNetHead

__all__ = ["GFLHead", "PointHead", "PointPredictions", "SidePredictions", "VFNetHead"]
