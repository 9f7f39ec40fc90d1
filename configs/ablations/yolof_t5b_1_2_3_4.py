"""YOLOF table 5b: dilations 1, 2, 3, 4 in the encoder's four blocks.

Published AP on val2017, not measured here: 37.4. Schedule: 1x.
"""

from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.dilations = [1, 2, 3, 4]
