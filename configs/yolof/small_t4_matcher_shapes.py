"""YOLOF table 4 at small scale, row 3: uniform matching, no dilated blocks, on the shapes.

The encoder is its projector alone.
"""

from ..common.models.yolof_parts import no_blocks as _no_blocks
from .yolof_small_shapes import dataloader, lr_multiplier, model, optimizer, train

_no_blocks(model)
