"""YOLOF table 7: 15 anchors at each location.

Published AP on val2017, not measured here: 35.0. Schedule: 1x. 3 sizes an octave and 1 aspect
ratio.
"""

from ..common.models.yolof_parts import anchors as _anchors
from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

_anchors(model, octaves=3)
