"""VFNet table 3, row 1: raw VFNet (no star, no refinement) with the focal loss.

Published AP on val2017, not measured here: 39.0. Schedule: 1x. The head is FCOS's, with four
convolutions and without its centerness branch; boxes are weighted by their IoU, as in VFNet.
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.heads import PointHead
from vfnet_yolof.modeling.losses import FocalLoss

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.head = L(PointHead)(
    in_channels="${..backbone.out_channels}",
    num_classes="${..num_classes}",
    conv_channels=256,
    num_convs=4,
    strides="${..points.strides}",
    centerness=False,
)
model.cls_loss = L(FocalLoss)(alpha=0.25, gamma=2.0)
train.output_dir = "./output/ablations/vfnet_t3_fl"
