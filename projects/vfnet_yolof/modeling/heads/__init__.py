"""Heads: feature maps in, raw predictions of every level out. No losses, no NMS."""

from .point_head import PointHead
from .predictions import PointPredictions
from .vfnet_head import VFNetHead

__all__ = ["PointHead", "PointPredictions", "VFNetHead"]
