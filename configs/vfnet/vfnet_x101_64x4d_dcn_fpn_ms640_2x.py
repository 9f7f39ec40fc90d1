"""VFNet, ResNeXt-101 64x4d with DCNv2, 2x, training at 640 to 800 (the paper's table 4).

Published AP, not measured here: 49.9 on test-dev. Else as vfnet_x101_64x4d_dcn_fpn_ms_2x.py.
"""

from ..common.data.multi_scale import multi_scale as _multi_scale
from .vfnet_x101_64x4d_dcn_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_multi_scale(dataloader, 640, 800)
