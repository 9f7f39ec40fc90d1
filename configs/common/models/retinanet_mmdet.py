"""RetinaNet with ResNet-50 and FPN as MMDetection has it: the baseline of VFNet's and GFL's tables.

Other than Detectron2's, its anchors are ordered by shape, then by size, a box gets its best anchors
whichever box these overlap most, anchors in the padding learn nothing, there is no ReLU between P6
and P7, and an image without positives counts as one positive in the divisors.
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.anchors import OctaveAnchors
from vfnet_yolof.modeling.assigners import MMDetMaxIoUAssigner
from vfnet_yolof.modeling.backbones import LastLevelP6P7NoReLU
from vfnet_yolof.modeling.boxes import SCALE_CLAMP, ClampedDeltaCoder
from vfnet_yolof.modeling.heads import AnchorHead
from vfnet_yolof.modeling.losses import FocalLoss, SmoothL1BoxLoss
from vfnet_yolof.modeling.meta_arch import AnchorDetector

from .vfnet import model as _vfnet

_vfnet.postprocessor.nms.iou_threshold = 0.5

model = L(AnchorDetector)(
    backbone=_vfnet.backbone,
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
    anchor_generator=L(OctaveAnchors)(
        strides=[8, 16, 32, 64, 128],
        octave_base_scale=4.0,
        scales_per_octave=3,
        ratios=[0.5, 1.0, 2.0],
    ),
    box_coder=L(ClampedDeltaCoder)(center_clamp=None, shrink_clamp=SCALE_CLAMP),
    assigner=L(MMDetMaxIoUAssigner)(negative_iou=0.4, positive_iou=0.5, all_best=True),
    cls_loss=L(FocalLoss)(alpha=0.25, gamma=2.0),
    box_loss=L(SmoothL1BoxLoss)(beta=0.0),
    box_weight=1.0,
    padding_is_background=False,
    min_positives=1,
    postprocessor=_vfnet.postprocessor,
    num_classes=80,
    pixel_mean=_vfnet.pixel_mean,
    pixel_std=_vfnet.pixel_std,
    input_format="${dataloader.train.mapper.image_format}",
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
)

model.backbone.top_block = L(LastLevelP6P7NoReLU)(
    in_channels=2048, out_channels="${..out_channels}", in_feature="res5"
)
