"""GFL table 1a, ATSS, "joint w/ QFL": the joint representation with QFL.

Published AP on val2017, not measured here: 39.9. Schedule: 1x. Sides are Dirac deltas. The
predicted score weighs the box loss.
"""

from ..common.models.gfl_parts import dirac_delta as _dirac_delta
from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_dirac_delta(model)
