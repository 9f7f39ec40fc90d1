"""GFL table 2a, FCOS, "General": a general distribution, trained by its mean alone.

Published AP on val2017, not measured here: 38.8. Schedule: 1x. As gfl_t2a_general but for the
assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t2a_general import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
