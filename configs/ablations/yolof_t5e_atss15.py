"""YOLOF table 5e: ATSS with the top 15.

Published AP on val2017, not measured here: 36.5. Schedule: 1x. The number counts anchors, not
locations; see docs/yolof_comparisons.md.
"""

from ..common.models.yolof_parts import atss as _atss
from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

_atss(model, topk=15)
