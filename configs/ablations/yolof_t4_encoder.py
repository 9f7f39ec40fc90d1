"""YOLOF table 4, row 2: dilated encoder, no uniform matching.

Published AP on val2017, not measured here: 29.1. Schedule: 1x. RetinaNet's thresholds match.
"""

from ..common.models.yolof_parts import max_iou as _max_iou
from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

_max_iou(model)
