"""ATSS, ResNet-101, 2x multi-scale: a baseline of VFNet's table 4.

Published AP, not measured here: 43.6 on test-dev; no AP on val2017 is published.
Boxes are deltas of anchors, as there. ATSS's authors start from MSRA's weights (B, G, R) and warm
up at a constant rate; here the weights are torchvision's (R, G, B), and the warm-up is linear.
24 epochs, steps at 16 and 22; the shorter side is drawn from 640 to 800.

    python tools/train_net.py --config-file atss/atss_r101_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-101.pkl
"""

from ..common.models.atss_deltas import model
from ..vfnet.vfnet_r50_fpn_ms_2x import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.depth = 101
dataloader.train.mapper.augmentations[0].short_edge_length = [640, 800]
