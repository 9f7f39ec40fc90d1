"""Necks: backbones around backbones, from features to features."""

from .dilated_encoder import (
    DilatedEncoder,
    build_vfnet_yolof_resnet_dilated_backbone,
    encoder_from_keys,
)
from .encoders import MiSoEncoder, SiMoEncoder
from .pafpn import PAFPN, PAFPNX

__all__ = [
    "PAFPN",
    "PAFPNX",
    "DilatedEncoder",
    "MiSoEncoder",
    "SiMoEncoder",
    "build_vfnet_yolof_resnet_dilated_backbone",
    "encoder_from_keys",
]
