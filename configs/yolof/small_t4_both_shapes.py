"""YOLOF table 4 at small scale, row 4: dilated blocks and uniform matching, on the shapes.

The full model. All four rows with several seeds: docs/yolof_comparisons.md.
"""

from .yolof_small_shapes import dataloader, lr_multiplier, model, optimizer, train
