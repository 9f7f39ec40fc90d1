"""What makes a detector small enough for a CPU."""


def shrink_bottom_up(bottom_up):
    """Half-width ResNet-18, to be trained from scratch; changes ``bottom_up``."""
    bottom_up.depth = 18
    bottom_up.norm = "BN"
    bottom_up.freeze_at = 0
    bottom_up.stem_channels = 32
    bottom_up.res2_channels = 32


def shrink(model):
    """Half-width ResNet-18, 64 channels, to be trained from scratch; changes ``model``."""
    shrink_bottom_up(model.backbone.bottom_up)
    model.backbone.out_channels = 64
    model.head.conv_channels = 64
    model.head.num_convs = 2


def shrink_row(model):
    """The same of a row of a paper's table, whatever its detector; changes ``model``.

    What makes the row stays: losses, assigner, representation, anchors at a location, levels and
    dilations. Towers keep half their convolutions, so that VFNet's star convolution takes the place
    of one here as it does at full size (4 or 3 and a star; 2 or 1 and a star). YOLOF becomes a
    quarter of its scale, as in ``yolof_small.py``.
    """
    backbone, head = model.backbone, model.head
    shrink_bottom_up(backbone.bottom_up)
    if "stride_in_1x1" in backbone.bottom_up:
        backbone.bottom_up.stride_in_1x1 = False
    head.conv_channels = 64
    if "in_feature" in backbone:
        backbone.bottom_up.out_features = ["res3"]
        backbone.in_feature = "res3"
        backbone.channels = 64
        backbone.mid_channels = 16
        generator = model.anchor_generator
        generator.sizes = [[size / 4 for size in sizes] for sizes in generator.sizes]
        generator.strides = [8]
        model.box_coder.center_clamp = 8.0
        return
    backbone.out_channels = 64
    top = backbone.top_block
    if top.in_feature == "res5":
        top.in_channels = 256
    for name in ("num_convs", "num_cls_convs", "num_reg_convs"):
        if name in head:
            head[name] //= 2
