"""SSD512 with VGG16, as MMDetection has it."""

from detectron2.config import LazyCall as L
from vfnet_yolof.layers.nms import HardNMS
from vfnet_yolof.modeling.anchors import SSDAnchors
from vfnet_yolof.modeling.assigners import MMDetMaxIoUAssigner
from vfnet_yolof.modeling.backbones import VGG16
from vfnet_yolof.modeling.boxes import SCALE_CLAMP, ClampedDeltaCoder
from vfnet_yolof.modeling.heads import SSDHead
from vfnet_yolof.modeling.losses import MinedCrossEntropy, SmoothL1BoxLoss
from vfnet_yolof.modeling.meta_arch import AnchorDetector
from vfnet_yolof.modeling.necks import SSDNeck
from vfnet_yolof.modeling.postprocess import PostProcessor

model = L(AnchorDetector)(
    backbone=L(SSDNeck)(
        bottom_up=L(VGG16)(out_features=["conv4_3", "fc7"]),
        in_features=["conv4_3", "fc7"],
        extra_channels=[512, 256, 256, 256, 256],
    ),
    head=L(SSDHead)(
        in_channels=[512, 1024, 512, 256, 256, 256, 256],
        num_anchors=[4, 6, 6, 6, 6, 4, 4],
        num_classes="${..num_classes}",
        background=True,
    ),
    anchor_generator=L(SSDAnchors)(
        strides=[8, 16, 32, 64, 128, 256, 512],
        sizes=[20, 51, 133, 215, 296, 378, 460, 542],
        ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
    ),
    box_coder=L(ClampedDeltaCoder)(
        center_clamp=None, shrink_clamp=SCALE_CLAMP, stds=[0.1, 0.1, 0.2, 0.2]
    ),
    assigner=L(MMDetMaxIoUAssigner)(negative_iou=0.5, positive_iou=0.5, all_best=False),
    cls_loss=L(MinedCrossEntropy)(ratio=3.0),
    box_loss=L(SmoothL1BoxLoss)(beta=1.0),
    box_weight=1.0,
    padding_is_background=False,
    min_positives=1,
    postprocessor=L(PostProcessor)(
        score_thresh=0.02,
        topk_candidates=1000,
        nms=L(HardNMS)(iou_threshold=0.45, class_agnostic=False),
        max_detections=200,
        candidates="pair",
    ),
    num_classes=80,
    # R, G, B, as MMDetection gives the images to Caffe's VGG16.
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="${dataloader.train.mapper.image_format}",
    head_in_features=["f0", "f1", "f2", "f3", "f4", "f5", "f6"],
)
