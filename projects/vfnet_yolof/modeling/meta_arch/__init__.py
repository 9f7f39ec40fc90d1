"""The detectors, registered in Detectron2's META_ARCH_REGISTRY."""

from .atss import ATSS
from .gfl import GFL
from .vfnet import VFNet

__all__ = ["ATSS", "GFL", "VFNet"]
