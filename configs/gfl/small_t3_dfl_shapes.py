"""GFL table 3 at small scale, row 3: DFL alone, on the embedded shapes.

General distributions with focal loss and centerness branch. All four rows with several seeds:
docs/gfl.md.
"""

from vfnet_yolof.modeling.meta_arch import CenternessTarget as _CenternessTarget

from ..common.models.gfl_parts import quality_branch as _quality_branch
from .gfl_small_shapes import dataloader, lr_multiplier, model, optimizer, train

_quality_branch(model, _CenternessTarget)
