"""VFNet table 2, row 5: varifocal loss with alpha 1.25, gamma 2.5, q weighting.

Published AP on val2017, not measured here: 41.5. Schedule: 1x.
"""

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss.alpha = 1.25
model.cls_loss.gamma = 2.5
