"""GFL table 1a, FCOS, "centerness-branch": a separate branch that learns centerness, focal loss.

Published AP on val2017, not measured here: 38.5. Schedule: 1x. As gfl_t1a_centerness but for the
assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t1a_centerness import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
