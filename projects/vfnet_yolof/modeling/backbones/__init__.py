"""Backbones and their registration with Detectron2."""

from .resnet import StaticBatchNorm2d, build_resnet, build_vfnet_yolof_resnet_fpn_backbone

__all__ = ["StaticBatchNorm2d", "build_resnet", "build_vfnet_yolof_resnet_fpn_backbone"]
