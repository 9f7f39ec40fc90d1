"""GFL table 1a, FCOS, "w/o quality branch": no quality representation, focal loss.

Published AP on val2017, not measured here: 37.8. Schedule: 1x. As gfl_t1a_none but for the
assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t1a_none import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
