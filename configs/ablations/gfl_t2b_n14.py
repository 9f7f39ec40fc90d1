"""GFL table 2b: n = 14, that is 15 bins for each side, one stride apart.

Published AP on val2017, not measured here: 40.2. Schedule: 1x.
"""

from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.head.representation.reg_max = 14
