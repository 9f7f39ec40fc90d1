"""YOLOF table 5e: Hungarian matching.

Published AP on val2017, not measured here: 35.8. Schedule: 1x. The paper says no more than that it
is DETR's; for the cost see the assigner. It needs scipy.
"""

from detectron2.config import LazyCall as _L
from vfnet_yolof.modeling.assigners.hungarian import HungarianAssigner as _HungarianAssigner

from ..yolof.yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

model.assigner = _L(_HungarianAssigner)(
    cls_weight=1.0, l1_weight=5.0, giou_weight=2.0, box_scale=1000.0
)
