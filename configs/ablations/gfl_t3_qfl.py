"""GFL table 3, row 2: QFL alone.

Published AP on val2017, not measured here: 39.9. Schedule: 1x. The joint representation on Dirac
deltas.
"""

from ..common.models.gfl_parts import dirac_delta as _dirac_delta
from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_dirac_delta(model)
