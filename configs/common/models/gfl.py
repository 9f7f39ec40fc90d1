"""GFL with ResNet-50 and FPN, as the paper has it."""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.backbones import LastLevelP6P7NoReLU
from vfnet_yolof.modeling.heads import GFLHead
from vfnet_yolof.modeling.losses import QualityFocalLoss
from vfnet_yolof.modeling.meta_arch import GFL, IoUTarget, PredictedScore
from vfnet_yolof.modeling.representations import GeneralDistribution

from .vfnet import model as _vfnet

model = L(GFL)(
    backbone=_vfnet.backbone,
    head=L(GFLHead)(
        in_channels="${..backbone.out_channels}",
        num_classes="${..num_classes}",
        conv_channels=256,
        num_convs=4,
        strides="${..points.strides}",
        representation=L(GeneralDistribution)(reg_max=16, interval=1.0),
        quality=False,
    ),
    points=_vfnet.points,
    assigner=_vfnet.assigner,
    cls_loss=L(QualityFocalLoss)(beta=2.0),
    cls_quality=L(IoUTarget)(),
    box_quality=L(PredictedScore)(),
    quality=None,
    box_weight=2.0,
    dfl_weight=0.25,
    postprocessor=_vfnet.postprocessor,
    num_classes=80,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="${dataloader.train.mapper.image_format}",
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
)

model.backbone.top_block._target_ = LastLevelP6P7NoReLU
