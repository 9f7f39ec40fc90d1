"""YOLOF table 4, row 1: neither dilated encoder nor uniform matching.

Published AP on val2017, not measured here: 21.1. Schedule: 1x. The encoder is its projector alone;
RetinaNet's thresholds match.
"""

from ..common.models.yolof_parts import max_iou as _max_iou
from ..common.models.yolof_parts import no_blocks as _no_blocks
from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

_no_blocks(model)
_max_iou(model)
