"""GFL table 1a, FCOS, "IoU-guided": no branch, focal loss weighted with the IoU.

Published AP on val2017, not measured here: 38.2. Schedule: 1x. As gfl_t1a_iou_guided but for the
assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t1a_iou_guided import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
