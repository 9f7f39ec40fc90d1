"""A YOLOF for a CPU and images of about 160 px: half-width ResNet-18, trained from scratch.

Everything is the paper's model at a quarter of the scale: one feature of stride 8 (C3) with about
20 x 20 cells, anchors of 8 to 128 px, centres that move by 8 px at most. At stride 32 such images
have five cells a side, and objects of 8 px lie between them.
"""

from .small import shrink_bottom_up as _shrink_bottom_up
from .yolof import model

_shrink_bottom_up(model.backbone.bottom_up)
model.backbone.bottom_up.stride_in_1x1 = False
model.backbone.bottom_up.out_features = ["res3"]
model.backbone.in_feature = "res3"
model.backbone.channels = 64
model.backbone.mid_channels = 16
model.head.conv_channels = 64
model.anchor_generator.sizes = [[8, 16, 32, 64, 128]]
model.anchor_generator.strides = [8]
model.box_coder.center_clamp = 8.0
