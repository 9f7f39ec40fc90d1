"""GFL table 1a, FCOS, "IoU-branch": a separate branch that learns the IoU, focal loss.

Published AP on val2017, not measured here: 38.7. Schedule: 1x. As gfl_t1a_iou but for the
assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t1a_iou import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
