"""YOLOF, ResNet-50, DC5, 1x (the paper's table 9).

Published AP on val2017, not measured here: 39.2. 64 images a batch, 22,500 iterations. The last
stage dilates, so that the feature has stride 16; six anchors, top 8, positives ignored below an IoU
of 0.1. The blocks' dilations are 4, 8, 12, 16 as in the authors' code; the paper says that they
stay 2, 4, 6, 8.

    python tools/train_net.py --config-file yolof/yolof_r50_dc5_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/MSRA/R-50.pkl
"""

from ..common.models.yolof_parts import dc5 as _dc5
from .yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

_dc5(model)
