"""A YOLOF for a CPU and pictures of about 160 px: half-width ResNet-18, trained from scratch.

Everything is the paper's model at half the scale: one feature of stride 16 (C4), anchors from 16 px
on, centres that move by 16 px at most. At stride 32 such pictures have five cells a side.
"""

from .small import shrink_bottom_up as _shrink_bottom_up
from .yolof import model

_shrink_bottom_up(model.backbone.bottom_up)
model.backbone.bottom_up.stride_in_1x1 = False
model.backbone.bottom_up.out_features = ["res4"]
model.backbone.in_feature = "res4"
model.backbone.channels = 64
model.backbone.mid_channels = 16
# The paper's dilations would reach beyond a map of ten cells a side.
model.backbone.dilations = [1, 2, 3, 4]
model.head.conv_channels = 64
model.head.num_anchors = 4
model.anchor_generator.sizes = [[16, 32, 64, 128]]
model.anchor_generator.strides = [16]
model.box_coder.center_clamp = 16.0
