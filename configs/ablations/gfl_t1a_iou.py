"""GFL table 1a, ATSS, "IoU-branch": a separate branch that learns the IoU, focal loss.

Published AP on val2017, not measured here: 39.6. Schedule: 1x. Sides are Dirac deltas. The IoU
weighs the box loss; its prediction multiplies the scores.
"""

from vfnet_yolof.modeling.meta_arch import IoUTarget as _IoUTarget

from ..common.models.gfl_parts import dirac_delta as _dirac_delta
from ..common.models.gfl_parts import quality_branch as _quality_branch
from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_dirac_delta(model)
_quality_branch(model, _IoUTarget)
