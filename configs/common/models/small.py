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
