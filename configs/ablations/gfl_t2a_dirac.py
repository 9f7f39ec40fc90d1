"""GFL table 2a, ATSS, "Dirac delta": one number for each side.

Published AP on val2017, not measured here: 39.2. Schedule: 1x. As in all rows without QFL, a
centerness branch represents the quality.
"""

from vfnet_yolof.modeling.meta_arch import CenternessTarget as _CenternessTarget

from ..common.models.gfl_parts import dirac_delta as _dirac_delta
from ..common.models.gfl_parts import quality_branch as _quality_branch
from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_dirac_delta(model)
_quality_branch(model, _CenternessTarget)
