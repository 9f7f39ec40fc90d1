"""Detectron2's own FCOS with the backbone and widths of the small VFNet, for comparisons."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead

from .vfnet_small import model as _vfnet

model = L(FCOS)(
    backbone=_vfnet.backbone,
    head=L(FCOSHead)(
        input_shape=[L(ShapeSpec)(channels=64)] * 5,
        num_classes="${..num_classes}",
        conv_dims=[64, 64, 64, 64],
        prior_prob=0.01,
        norm="GN",
    ),
    num_classes=80,
    # Detectron2's threshold for FCOS, 0.2 on the geometric mean of class score and centerness,
    # is meant for COCO; 0.05 lets both detectors keep what they are unsure of.
    test_score_thresh=0.05,
    test_nms_thresh=0.6,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
)
