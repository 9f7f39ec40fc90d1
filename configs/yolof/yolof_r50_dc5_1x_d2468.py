"""YOLOF, ResNet-50, DC5, 1x, with the dilations of the paper's text (table 9).

Published AP on val2017, not measured here: 39.2. As yolof_r50_dc5_1x.py, whose dilations 4, 8, 12,
16 are those of the authors' code, with 2, 4, 6, 8.
"""

from .yolof_r50_dc5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.dilations = [2, 4, 6, 8]
