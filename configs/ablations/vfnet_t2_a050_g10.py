"""VFNet table 2, row 1: varifocal loss with alpha 0.5, gamma 1.0, q weighting.

Published AP on val2017, not measured here: 41.2. Schedule: 1x.
"""

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss.alpha = 0.5
model.cls_loss.gamma = 1.0
