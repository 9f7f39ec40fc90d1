"""YOLOF table 8: ATSS with k = 17.

Published AP on val2017, not measured here: 36.3. Schedule: 1x. k counts anchors, not locations; see
docs/yolof_comparisons.md.
"""

from ..common.models.yolof_parts import atss as _atss
from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

_atss(model, topk=17)
