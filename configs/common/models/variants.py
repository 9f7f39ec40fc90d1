"""Backbones of the larger models, each a change of a detector with a ResNet-50 and FPN."""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.backbones import build_res2net


def resnext101(model, groups, width):
    """ResNeXt-101, ``groups`` x ``width`` channels in the first stage's 3x3 convolutions."""
    bottom_up = model.backbone.bottom_up
    bottom_up.depth = 101
    bottom_up.num_groups = groups
    bottom_up.width_per_group = width


def deformable(model, stages=(3, 4, 5), version=2, head=False):
    """Deformable 3x3 convolutions in the backbone's ``stages``; ``head``: in the towers, too."""
    bottom_up = model.backbone.bottom_up
    bottom_up.deform_stages = list(stages)
    bottom_up.deform_version = version
    if head:
        model.head.dcn_on_last_conv = True


def res2net101(model):
    """Res2Net-101 v1d, 26w x 4s."""
    model.backbone.bottom_up = L(build_res2net)(
        depth=101, norm="StaticBN", freeze_at=2, out_features=["res3", "res4", "res5"]
    )
