"""RepPoints with ResNet-50 and FPN: boxes by moments, group norm in neck and head."""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.assigners import MMDetMaxIoUAssigner, NearestPointAssigner
from vfnet_yolof.modeling.heads import RepPointsHead
from vfnet_yolof.modeling.losses import FocalLoss
from vfnet_yolof.modeling.meta_arch import RepPoints
from vfnet_yolof.modeling.points import PointGenerator
from vfnet_yolof.modeling.representations import MomentPoints

from .retinanet_mmdet import model as _retinanet

model = L(RepPoints)(
    backbone=_retinanet.backbone,
    head=L(RepPointsHead)(
        in_channels="${..backbone.out_channels}",
        num_classes="${..num_classes}",
        conv_channels=256,
        num_convs=3,
        strides="${..points.strides}",
        norm="GN",
        gradient_mul=0.1,
        representation=L(MomentPoints)(num_points=9, gradient_mul=0.01),
    ),
    points=L(PointGenerator)(strides=[8, 16, 32, 64, 128], offset=0.0, octave_base_scale=4.0),
    init_assigner=L(NearestPointAssigner)(strides="${..points.strides}", scale=4.0, topk=1),
    assigner=L(MMDetMaxIoUAssigner)(negative_iou=0.4, positive_iou=0.5, all_best=True),
    cls_loss=L(FocalLoss)(alpha=0.25, gamma=2.0),
    beta=0.11,
    base_scale=4.0,
    box_init_weight=0.5,
    box_weight=1.0,
    min_positives=1,
    postprocessor=_retinanet.postprocessor,
    num_classes=80,
    pixel_mean=_retinanet.pixel_mean,
    pixel_std=_retinanet.pixel_std,
    input_format="${dataloader.train.mapper.image_format}",
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
)

model.backbone.norm = "GN"
model.backbone.top_block.norm = "GN"
