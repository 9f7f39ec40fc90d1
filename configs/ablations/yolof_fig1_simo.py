"""YOLOF figure 1, SiMo: five levels from C5 alone.

Published on val2017, not measured here: less than 1 AP below MiMo. Schedule: 1x, 16 images a batch.
Nine anchors at each location.
"""

from detectron2.config import LazyCall as _L
from vfnet_yolof.modeling.necks import SiMoEncoder as _SiMoEncoder

from ..baselines.retinanet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone = _L(_SiMoEncoder)(
    bottom_up=model.backbone.bottom_up,
    in_feature="res5",
    out_channels=256,
    top_block=model.backbone.top_block,
)
model.backbone.bottom_up.out_features = ["res5"]
