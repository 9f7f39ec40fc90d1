"""VFNet, ResNet-101, 2x (the authors' table of models).

Published AP, not measured here: 43.5 on val2017, 43.9 on test-dev.
16 images a batch, 24 epochs, steps at 16 and 22, single scale.

    python tools/train_net.py --config-file vfnet/vfnet_r101_fpn_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-101.pkl
"""

from ..common.schedule import lr_multiplier_2x as lr_multiplier
from ..common.schedule import max_iter_2x as _max_iter
from .vfnet_r101_fpn_1x import dataloader, model, optimizer, train

train.max_iter = _max_iter
