"""VFNet table 3, row 4: all three components, the full model.

Published AP on val2017, not measured here: 41.6. Schedule: 1x.
"""

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train
