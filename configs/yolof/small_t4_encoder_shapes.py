"""YOLOF table 4 at small scale, row 2: dilated blocks, no uniform matching, on the shapes.

RetinaNet's thresholds match.
"""

from ..common.models.yolof_parts import max_iou as _max_iou
from .yolof_small_shapes import dataloader, lr_multiplier, model, optimizer, train

_max_iou(model)
