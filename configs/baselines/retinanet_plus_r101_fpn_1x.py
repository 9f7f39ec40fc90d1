"""RetinaNet+, ResNet-101, 1x (YOLOF table 1).

Published AP on val2017, not measured here: 40.0. Schedule: 1x, 16 images a batch.

    python tools/train_net.py --config-file baselines/retinanet_plus_r101_fpn_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/MSRA/R-101.pkl
"""

from .retinanet_plus_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
