"""YOLOF table 5b: dilations 3, 6, 9, 12 in the encoder's four blocks.

Published AP on val2017, not measured here: 37.3. Schedule: 1x.
"""

from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.dilations = [3, 6, 9, 12]
