"""YOLOF, ResNeXt-101 64x4d, C5, 1x (the paper's table 1).

Published AP on val2017, not measured here: 42.2. 32 images a batch, 45,000 iterations, half the
learning rate. Other than the ResNets it has the stride in the 3x3 convolutions.

    python tools/train_net.py --config-file yolof/yolof_x101_64x4d_c5_1x.py --num-gpus 8 \\
        train.init_checkpoint=catalog://ImageNetPretrained/FAIR/X-101-64x4d
"""

from ..common.models.variants import resnext101 as _resnext101
from ..common.schedule_yolof import train_for as _train_for
from .yolof_r50_c5_1x import dataloader, model, optimizer, train

_resnext101(model, groups=64, width=4)
model.backbone.bottom_up.stride_in_1x1 = False
optimizer.lr = 0.06
lr_multiplier = _train_for(1, train, dataloader, batch_size=32)
