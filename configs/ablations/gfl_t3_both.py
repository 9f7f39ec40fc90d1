"""GFL table 3, row 4: QFL and DFL.

Published AP on val2017, not measured here: 40.2. Schedule: 1x. The full model.
"""

from ..gfl.gfl_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train
