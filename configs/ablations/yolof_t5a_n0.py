"""YOLOF table 5a: no residual blocks in the encoder.

Published AP on val2017, not measured here: 33.8. Schedule: 1x. The projector alone.
"""

from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.dilations = []
