"""GFL table 2a, FCOS, "General w/ DFL": a general distribution with DFL.

Published AP on val2017, not measured here: 39.0. Schedule: 1x. As gfl_t2a_general_dfl but for the
assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t2a_general_dfl import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
