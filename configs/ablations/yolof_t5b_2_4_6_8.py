"""YOLOF table 5b: dilations 2, 4, 6, 8 in the encoder's four blocks.

Published AP on val2017, not measured here: 37.7. Schedule: 1x. The full model.
"""

from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train
