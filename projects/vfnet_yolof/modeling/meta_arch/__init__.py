"""The detectors, registered in Detectron2's META_ARCH_REGISTRY."""

from .anchor_detector import AnchorDetector
from .atss import ATSS
from .gfl import GFL
from .gfocal import GFocal
from .vfnet import VFNet
from .yolof import YOLOF

__all__ = ["ATSS", "GFL", "YOLOF", "AnchorDetector", "GFocal", "VFNet"]
