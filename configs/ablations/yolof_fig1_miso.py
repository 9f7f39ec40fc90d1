"""YOLOF figure 1, MiSo: one level from C3, C4 and C5.

Published on val2017, not measured here: at least 12 AP below MiMo. Schedule: 1x, 16 images a batch.
Five anchors at each location.
"""

from detectron2.config import LazyCall as _L
from vfnet_yolof.modeling.necks import MiSoEncoder as _MiSoEncoder

from ..baselines.retinanet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train
from ..common.models.yolof_parts import single_level as _single_level

model.backbone = _L(_MiSoEncoder)(
    bottom_up=model.backbone.bottom_up, in_features=["res3", "res4", "res5"], out_channels=256
)
_single_level(model)
