"""GFL table 2a, FCOS, "Dirac delta": one number for each side.

Published AP on val2017, not measured here: 38.5. Schedule: 1x. As gfl_t2a_dirac but for the
assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t2a_dirac import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
