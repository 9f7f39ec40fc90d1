"""VFNet table 2, row 6: varifocal loss with alpha 1.0, gamma 3.0, q weighting.

Published AP on val2017, not measured here: 41.3. Schedule: 1x.
"""

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss.alpha = 1.0
model.cls_loss.gamma = 3.0
