"""Necks: backbones around backbones, from features to features."""

from .dilated_encoder import (
    DilatedEncoder,
    build_vfnet_yolof_resnet_dilated_backbone,
    encoder_from_keys,
)

__all__ = [
    "DilatedEncoder",
    "build_vfnet_yolof_resnet_dilated_backbone",
    "encoder_from_keys",
]
