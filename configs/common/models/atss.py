"""FCOS+ATSS with ResNet-50 and FPN: the baseline of VFNet's tables 1 and 3.

Distances are exp(x) strides, as in FCOS; the divisors of the losses are those of VFNet's authors.
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.heads import PointHead
from vfnet_yolof.modeling.losses import FocalLoss
from vfnet_yolof.modeling.meta_arch import ATSS

from .vfnet import model as _vfnet

model = L(ATSS)(
    backbone=_vfnet.backbone,
    head=L(PointHead)(
        in_channels="${..backbone.out_channels}",
        num_classes="${..num_classes}",
        conv_channels=256,
        num_convs=4,
        strides="${..points.strides}",
        centerness=True,
    ),
    points=_vfnet.points,
    assigner=_vfnet.assigner,
    cls_loss=L(FocalLoss)(alpha=0.25, gamma=2.0),
    box_weight=2.0,
    centerness_weight=1.0,
    min_centerness_sum=1e-12,
    min_positives=1,
    postprocessor=_vfnet.postprocessor,
    num_classes=80,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="${dataloader.train.mapper.image_format}",
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
)
