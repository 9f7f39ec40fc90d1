"""The detectors: classes that take their parts as keywords."""

from .anchor_detector import YOLOF, AnchorDetector
from .foveabox import FoveaBox
from .gfl import ATSS, GFL, CenternessTarget, EqualQuality, IoUTarget, PredictedScore
from .gfocal import GFocal
from .reppoints import RepPoints
from .vfnet import VFNet

__all__ = [
    "ATSS",
    "GFL",
    "YOLOF",
    "AnchorDetector",
    "CenternessTarget",
    "EqualQuality",
    "FoveaBox",
    "GFocal",
    "IoUTarget",
    "PredictedScore",
    "RepPoints",
    "VFNet",
]
