"""GFL table 1a, ATSS, "w/o quality branch": no quality representation, focal loss.

Published AP on val2017, not measured here: 38.0. Schedule: 1x. Sides are Dirac deltas. Nothing
represents the quality of boxes, so all positives weigh the same in the box loss.
"""

from ..common.models.gfl_parts import dirac_delta as _dirac_delta
from ..common.models.gfl_parts import no_quality as _no_quality
from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_dirac_delta(model)
_no_quality(model)
