"""Backbones and their registration with Detectron2."""

from .resnet import (
    StaticBatchNorm2d,
    build_resnet,
    build_vfnet_yolof_resnet_fpn_backbone,
    build_vfnet_yolof_resnet_fpn_no_relu_backbone,
)
from .top_block import LastLevelP6P7NoReLU

__all__ = [
    "LastLevelP6P7NoReLU",
    "StaticBatchNorm2d",
    "build_resnet",
    "build_vfnet_yolof_resnet_fpn_backbone",
    "build_vfnet_yolof_resnet_fpn_no_relu_backbone",
]
