"""YOLOF table 5e: Max-IoU matching.

Published AP on val2017, not measured here: 29.1. Schedule: 1x. RetinaNet's thresholds: positive
from an IoU of 0.5 on, ignored from 0.4 on, and the best anchors of each box.
"""

from ..common.models.yolof_parts import max_iou as _max_iou
from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

_max_iou(model)
