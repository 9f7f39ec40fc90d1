"""VFNet table 3, row 2: raw VFNet (no star, no refinement) with the varifocal loss.

Published AP on val2017, not measured here: 40.1. Schedule: 1x. The head is FCOS's, with four
convolutions and without its centerness branch; as in the authors' raw head, boxes begin at 64 to
1024 pixels, weigh as much as their IoU, and their loss has the divisor of VFNet's.
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.heads import PointHead

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.head = L(PointHead)(
    in_channels="${..backbone.out_channels}",
    num_classes="${..num_classes}",
    conv_channels=256,
    num_convs=4,
    strides="${..points.strides}",
    reg_denom=[64, 128, 256, 512, 1024],
    centerness=False,
)
train.output_dir = "./output/ablations/vfnet_t3_vfl"
