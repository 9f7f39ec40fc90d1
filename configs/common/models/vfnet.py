"""VFNet with ResNet-50 and FPN, as the paper has it."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from vfnet_yolof.layers.nms import HardNMS
from vfnet_yolof.modeling.assigners import ATSSAssigner
from vfnet_yolof.modeling.backbones import build_resnet
from vfnet_yolof.modeling.heads import VFNetHead
from vfnet_yolof.modeling.losses import VarifocalLoss
from vfnet_yolof.modeling.meta_arch import VFNet
from vfnet_yolof.modeling.points import PointGenerator
from vfnet_yolof.modeling.postprocess import PostProcessor

model = L(VFNet)(
    backbone=L(FPN)(
        bottom_up=L(build_resnet)(
            depth=50,
            norm="StaticBN",
            freeze_at=2,
            out_features=["res3", "res4", "res5"],
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        top_block=L(LastLevelP6P7)(
            in_channels="${..out_channels}", out_channels="${..out_channels}", in_feature="p5"
        ),
    ),
    head=L(VFNetHead)(
        in_channels="${..backbone.out_channels}",
        num_classes="${..num_classes}",
        conv_channels=256,
        num_convs=3,
        strides="${..points.strides}",
    ),
    points=L(PointGenerator)(strides=[8, 16, 32, 64, 128], offset=0.0, octave_base_scale=8.0),
    assigner=L(ATSSAssigner)(topk=9),
    cls_loss=L(VarifocalLoss)(alpha=0.75, gamma=2.0, iou_weighted=True, padding_is_negative=True),
    box_init_weight=1.5,
    box_weight=2.0,
    postprocessor=L(PostProcessor)(
        score_thresh=0.05,
        topk_candidates=1000,
        nms=L(HardNMS)(iou_threshold=0.6, class_agnostic=False),
        max_detections=100,
        candidates="pair",
    ),
    num_classes=80,
    # R, G, B, as torchvision's ImageNet weights expect.
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="${dataloader.train.mapper.image_format}",
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
)
