"""Backbones of the larger models, each a change of a detector with a ResNet-50 and FPN."""


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
