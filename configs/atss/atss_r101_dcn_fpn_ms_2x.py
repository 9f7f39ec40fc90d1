"""ATSS, ResNet-101 with DCNv2, 2x multi-scale: a baseline of VFNet's table 4.

Published AP, not measured here: 46.3 on test-dev; no AP on val2017 is published.
Its recipe differs in the weights to start from, see atss_r101_fpn_ms_2x.
24 epochs, steps at 16 and 22; the shorter side is drawn from 640 to 800.
DCNv2 in c3-c5 and as the last convolution of each tower, as ATSS has it.

    python tools/train_net.py --config-file atss/atss_r101_dcn_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-101.pkl
"""

from ..common.models.variants import deformable as _deformable
from .atss_r101_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
_deformable(model, head=True)
