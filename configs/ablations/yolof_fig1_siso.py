"""YOLOF figures 1 and 3, SiSo: one level from C5 alone.

Published on val2017, not measured here: at least 12 AP below MiMo. Schedule: 1x, 16 images a batch.
Five anchors at each location. FPN's convolutions on C5, 256 channels.
"""

from ..baselines.retinanet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train
from ..common.models.yolof_parts import single_level as _single_level

model.backbone.bottom_up.out_features = ["res5"]
model.backbone.in_features = ["res5"]
model.backbone.top_block = None
_single_level(model)
