"""A VFNet for a CPU: half-width ResNet-18, 64 channels, trained from scratch."""

from .vfnet import model

model.backbone.bottom_up.depth = 18
model.backbone.bottom_up.norm = "BN"
model.backbone.bottom_up.freeze_at = 0
model.backbone.bottom_up.stem_channels = 32
model.backbone.bottom_up.res2_channels = 32
model.backbone.out_channels = 64
model.head.conv_channels = 64
model.head.num_convs = 2
