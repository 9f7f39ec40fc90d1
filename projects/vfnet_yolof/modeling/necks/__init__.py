"""Necks: backbones around backbones, from features to features."""

from .dilated_encoder import (
    DilatedEncoder,
    build_vfnet_yolof_cspdarknet_dilated_backbone,
    build_vfnet_yolof_resnet_dilated_backbone,
    encoder_from_keys,
)
from .encoders import MiSoEncoder, SiMoEncoder
from .pafpn import PAFPN, PAFPNX, build_vfnet_yolof_res2net_pafpnx_backbone
from .ssd_neck import SSDNeck, build_vfnet_yolof_ssd_vgg16_backbone

__all__ = [
    "PAFPN",
    "PAFPNX",
    "DilatedEncoder",
    "MiSoEncoder",
    "SSDNeck",
    "SiMoEncoder",
    "build_vfnet_yolof_cspdarknet_dilated_backbone",
    "build_vfnet_yolof_res2net_pafpnx_backbone",
    "build_vfnet_yolof_resnet_dilated_backbone",
    "build_vfnet_yolof_ssd_vgg16_backbone",
    "encoder_from_keys",
]
