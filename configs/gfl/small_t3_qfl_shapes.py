"""GFL table 3 at small scale, row 2: QFL alone, on the embedded shapes.

The joint representation on Dirac deltas. All four rows with several seeds: docs/gfl.md.
"""

from ..common.models.gfl_parts import dirac_delta as _dirac_delta
from .gfl_small_shapes import dataloader, lr_multiplier, model, optimizer, train

_dirac_delta(model)
