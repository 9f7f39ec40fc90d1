"""GFL table 1a, FCOS, "centerness-guided": no branch, focal loss weighted with centerness.

Published AP on val2017, not measured here: 37.9. Schedule: 1x. As gfl_t1a_centerness_guided but
for the assignment.
"""

from ..common.models.gfl_parts import fcos_regions as _fcos_regions
from .gfl_t1a_centerness_guided import dataloader, lr_multiplier, model, optimizer, train

_fcos_regions(model)
