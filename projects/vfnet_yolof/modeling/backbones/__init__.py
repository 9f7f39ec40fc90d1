"""Backbones and their registration with Detectron2."""

from .darknet import CSPDarkNet
from .norms import StaticBatchNorm2d
from .res2net import build_res2net, build_vfnet_yolof_res2net_fpn_backbone
from .resnet import (
    build_resnet,
    build_vfnet_yolof_resnet_fpn_backbone,
    build_vfnet_yolof_resnet_fpn_c5_backbone,
    build_vfnet_yolof_resnet_fpn_no_relu_backbone,
    resnet_from_keys,
)
from .timm_backbone import TimmBackbone
from .top_block import LastLevelP6P7NoReLU, LastLevelP6P7Norm
from .vgg import VGG16

__all__ = [
    "VGG16",
    "CSPDarkNet",
    "LastLevelP6P7NoReLU",
    "LastLevelP6P7Norm",
    "StaticBatchNorm2d",
    "TimmBackbone",
    "build_res2net",
    "build_resnet",
    "build_vfnet_yolof_res2net_fpn_backbone",
    "build_vfnet_yolof_resnet_fpn_backbone",
    "build_vfnet_yolof_resnet_fpn_c5_backbone",
    "build_vfnet_yolof_resnet_fpn_no_relu_backbone",
    "resnet_from_keys",
]
