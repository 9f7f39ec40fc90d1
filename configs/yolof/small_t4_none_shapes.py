"""YOLOF table 4 at small scale, row 1: no dilated blocks, no uniform matching, on the shapes.

The encoder is its projector alone; RetinaNet's thresholds match.
"""

from ..common.models.yolof_parts import max_iou as _max_iou
from ..common.models.yolof_parts import no_blocks as _no_blocks
from .yolof_small_shapes import dataloader, lr_multiplier, model, optimizer, train

_no_blocks(model)
_max_iou(model)
