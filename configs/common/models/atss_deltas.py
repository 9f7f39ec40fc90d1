"""ATSS with ResNet-50 and FPN as it was published, and as MMDetection has it: deltas of anchors."""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.backbones import LastLevelP6P7NoReLU
from vfnet_yolof.modeling.representations import AnchorDeltas

from .atss import model

model.head.representation = L(AnchorDeltas)(anchor_side=8.0, weights=[0.1, 0.1, 0.2, 0.2])
model.backbone.top_block._target_ = LastLevelP6P7NoReLU
model.min_quality_sum = 1.0
