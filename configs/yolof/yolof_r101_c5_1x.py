"""YOLOF, ResNet-101, C5, 1x (the paper's table 1).

Published AP on val2017, not measured here: 39.8. 64 images a batch, 22,500 iterations.

    python tools/train_net.py --config-file yolof/yolof_r101_c5_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/MSRA/R-101.pkl
"""

from .yolof_r50_c5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
