"""FoveaBox with ResNet-50 and FPN, as MMDetection has it."""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.assigners import FoveaAssigner
from vfnet_yolof.modeling.heads import GFLHead
from vfnet_yolof.modeling.losses import FocalLoss
from vfnet_yolof.modeling.meta_arch import FoveaBox
from vfnet_yolof.modeling.points import PointGenerator
from vfnet_yolof.modeling.representations import DiracDelta

from .retinanet_mmdet import model as _retinanet

model = L(FoveaBox)(
    backbone=_retinanet.backbone,
    head=L(GFLHead)(
        in_channels="${..backbone.out_channels}",
        num_classes="${..num_classes}",
        conv_channels=256,
        num_convs=4,
        strides="${..points.strides}",
        norm="",
        level_scales=False,
        representation=L(DiracDelta)(unit=2.0),
    ),
    points=L(PointGenerator)(
        strides=[8, 16, 32, 64, 128], offset=FoveaAssigner.point_offset, octave_base_scale=4.0
    ),
    assigner=L(FoveaAssigner)(strides="${..points.strides}", sigma=0.4),
    cls_loss=L(FocalLoss)(alpha=0.4, gamma=1.5),
    beta=0.11,
    box_weight=1.0,
    postprocessor=_retinanet.postprocessor,
    num_classes=80,
    pixel_mean=_retinanet.pixel_mean,
    pixel_std=_retinanet.pixel_std,
    input_format="${dataloader.train.mapper.image_format}",
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
)
