"""YOLOF table 5c: dilations 1, 1, 1, 1, with shortcuts.

Published AP on val2017, not measured here: 35.5. Schedule: 1x.
"""

from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.dilations = [1, 1, 1, 1]
