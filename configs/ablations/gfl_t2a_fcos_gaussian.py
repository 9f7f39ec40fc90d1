"""GFL table 2a, FCOS, "Gaussian": mean and variance of each side.

Published AP on val2017, not measured here: 38.6. Schedule: 1x. As gfl_t2a_gaussian but for the
assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t2a_gaussian import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
