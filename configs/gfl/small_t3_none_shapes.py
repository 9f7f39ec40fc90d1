"""GFL table 3 at small scale, row 1: neither QFL nor DFL, on the embedded shapes.

Focal loss, centerness branch and Dirac deltas. All four rows with several seeds: docs/gfl.md.
"""

from vfnet_yolof.modeling.meta_arch import CenternessTarget as _CenternessTarget

from ..common.models.gfl_parts import dirac_delta as _dirac_delta
from ..common.models.gfl_parts import quality_branch as _quality_branch
from .gfl_small_shapes import dataloader, lr_multiplier, model, optimizer, train

_dirac_delta(model)
_quality_branch(model, _CenternessTarget)
