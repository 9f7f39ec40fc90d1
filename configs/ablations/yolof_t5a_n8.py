"""YOLOF table 5a: 8 residual blocks in the encoder.

Published AP on val2017, not measured here: 36.6. Schedule: 1x. None of them is dilated.
"""

from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.dilations = [1, 1, 1, 1, 1, 1, 1, 1]
