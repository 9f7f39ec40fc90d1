"""RetinaNet with ResNet-50 and FPN as Detectron2 has it: the baseline of YOLOF's comparisons."""

from detectron2.config import LazyCall as L
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from vfnet_yolof.modeling.assigners import MaxIoUAssigner
from vfnet_yolof.modeling.boxes import ClampedDeltaCoder
from vfnet_yolof.modeling.heads import AnchorHead
from vfnet_yolof.modeling.losses import SmoothL1BoxLoss
from vfnet_yolof.modeling.meta_arch import AnchorDetector

from .yolof import model as _yolof

_yolof.backbone.bottom_up.out_features = ["res3", "res4", "res5"]
_yolof.postprocessor.nms.iou_threshold = 0.5

model = L(AnchorDetector)(
    backbone=L(FPN)(
        bottom_up=_yolof.backbone.bottom_up,
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        top_block=L(LastLevelP6P7)(
            in_channels=2048, out_channels="${..out_channels}", in_feature="res5"
        ),
    ),
    head=L(AnchorHead)(
        in_channels="${..backbone.out_channels}",
        num_classes="${..num_classes}",
        num_anchors=9,
        conv_channels=256,
        num_cls_convs=4,
        num_reg_convs=4,
        norm="",
        activation="ReLU",
        implicit_objectness=False,
    ),
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[x, x * 2 ** (1 / 3), x * 2 ** (2 / 3)] for x in (32, 64, 128, 256, 512)],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32, 64, 128],
        offset=0.0,
    ),
    box_coder=L(ClampedDeltaCoder)(center_clamp=None),
    assigner=L(MaxIoUAssigner)(negative_iou=0.4, positive_iou=0.5, low_quality_matches=True),
    cls_loss=_yolof.cls_loss,
    box_loss=L(SmoothL1BoxLoss)(beta=0.0),
    box_weight=1.0,
    postprocessor=_yolof.postprocessor,
    num_classes=80,
    pixel_mean=_yolof.pixel_mean,
    pixel_std=_yolof.pixel_std,
    input_format="${dataloader.train.mapper.image_format}",
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
)
