"""GFL table 2a, ATSS, "General w/ DFL": a general distribution with DFL.

Published AP on val2017, not measured here: 39.5. Schedule: 1x. As in all rows without QFL, a
centerness branch represents the quality.
"""

from vfnet_yolof.modeling.meta_arch import CenternessTarget as _CenternessTarget

from ..common.models.gfl_parts import quality_branch as _quality_branch
from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_quality_branch(model, _CenternessTarget)
