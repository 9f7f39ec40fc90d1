"""YOLOF table 5c: dilations 2, 4, 6, 8, without shortcuts.

Published AP on val2017, not measured here: 34.1. Schedule: 1x.
"""

from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.shortcut = False
