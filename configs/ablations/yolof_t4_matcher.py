"""YOLOF table 4, row 3: uniform matching, no dilated encoder.

Published AP on val2017, not measured here: 33.8. Schedule: 1x. The encoder is its projector alone.
"""

from ..common.models.yolof_parts import no_blocks as _no_blocks
from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

_no_blocks(model)
