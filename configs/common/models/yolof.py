"""YOLOF with ResNet-50 and C5, as the paper has it."""

from detectron2.config import LazyCall as L
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from vfnet_yolof.layers.nms import HardNMS
from vfnet_yolof.modeling.assigners import UniformAssigner
from vfnet_yolof.modeling.backbones import build_resnet
from vfnet_yolof.modeling.boxes import ClampedDeltaCoder
from vfnet_yolof.modeling.heads import AnchorHead
from vfnet_yolof.modeling.losses import FocalLoss, GIoUBoxLoss
from vfnet_yolof.modeling.meta_arch import YOLOF
from vfnet_yolof.modeling.necks import DilatedEncoder
from vfnet_yolof.modeling.postprocess import PostProcessor

model = L(YOLOF)(
    backbone=L(DilatedEncoder)(
        bottom_up=L(build_resnet)(
            depth=50,
            norm="FrozenBN",
            freeze_at=2,
            stride_in_1x1=True,
            out_features=["res5"],
        ),
        in_feature="res5",
        channels=512,
        mid_channels=128,
        dilations=[2, 4, 6, 8],
        norm="BN",
        activation="ReLU",
        shortcut=True,
    ),
    head=L(AnchorHead)(
        in_channels="${..backbone.channels}",
        num_classes="${..num_classes}",
        num_anchors=5,
        conv_channels=512,
        num_cls_convs=2,
        num_reg_convs=4,
        norm="BN",
        activation="ReLU",
        implicit_objectness=True,
    ),
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[32, 64, 128, 256, 512]], aspect_ratios=[1.0], strides=[32], offset=0.0
    ),
    box_coder=L(ClampedDeltaCoder)(center_clamp=32.0),
    assigner=L(UniformAssigner)(topk=4, min_iou=0.15, max_iou=0.7),
    cls_loss=L(FocalLoss)(alpha=0.25, gamma=2.0),
    box_loss=L(GIoUBoxLoss)(),
    box_weight=1.0,
    postprocessor=L(PostProcessor)(
        score_thresh=0.05,
        topk_candidates=1000,
        nms=L(HardNMS)(iou_threshold=0.6, class_agnostic=False),
        max_detections=100,
        candidates="pair",
        clip="after_nms",
    ),
    num_classes=80,
    # B, G, R, as the MSRA ImageNet weights expect, whose first convolution has the std in it.
    pixel_mean=[103.53, 116.28, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="${dataloader.train.mapper.image_format}",
    head_in_features=None,
)
