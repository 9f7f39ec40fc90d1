"""GFL table 1a, ATSS, "centerness-guided": no branch, focal loss weighted with centerness.

Published AP on val2017, not measured here: 38.2. Schedule: 1x. Sides are Dirac deltas. Centerness
weighs the box loss as well.
"""

from vfnet_yolof.modeling.meta_arch import CenternessTarget as _CenternessTarget

from ..common.models.gfl_parts import dirac_delta as _dirac_delta
from ..common.models.gfl_parts import guided as _guided
from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_dirac_delta(model)
_guided(model, _CenternessTarget)
