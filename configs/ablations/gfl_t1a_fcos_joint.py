"""GFL table 1a, FCOS, "joint w/ QFL": the joint representation with QFL.

Published AP on val2017, not measured here: 39.0. Schedule: 1x. As gfl_t1a_joint but for the
assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t1a_joint import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
