"""GFL table 3 at small scale, row 4: QFL and DFL, on the embedded shapes.

The full model. All four rows with several seeds: docs/gfl.md.
"""

from .gfl_small_shapes import dataloader, lr_multiplier, model, optimizer, train
