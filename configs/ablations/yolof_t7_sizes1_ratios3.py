"""YOLOF table 7: 15 anchors at each location.

Published AP on val2017, not measured here: 37.7. Schedule: 1x. 1 size an octave and 3 aspect
ratios.
"""

from ..common.models.yolof_parts import anchors as _anchors
from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

_anchors(model, ratios=(0.5, 1.0, 2.0))
