"""VFNet with the region rule of FCOS instead of ATSS (not a row of the paper).

Points lie on the centres of the cells and count within 1.5 strides of a box's centre, as in FCOS.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
