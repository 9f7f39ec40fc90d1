"""GFL, ResNet-101, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 44.9 on val2017, 45.0 on test-dev.
MMDetection's training of the same model: 44.7 on val2017.

    python tools/train_net.py --config-file gfl/gfl_r101_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-101.pkl
"""

from .gfl_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
