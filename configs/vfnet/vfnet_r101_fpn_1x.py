"""VFNet, ResNet-101, 1x (the authors' table of models).

Published AP, not measured here: 43.0 on val2017, 43.6 on test-dev.
16 images a batch, 12 epochs, steps at 8 and 11, single scale.

    python tools/train_net.py --config-file vfnet/vfnet_r101_fpn_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-101.pkl
"""

from .vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
