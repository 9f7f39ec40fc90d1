"""YOLOF, ResNet-101, DC5, 1x (the paper's table 9).

Published AP on val2017, not measured here: 40.5. 32 images a batch, 45,000 iterations, half the
learning rate, as its authors trained it for lack of memory.

    python tools/train_net.py --config-file yolof/yolof_r101_dc5_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/MSRA/R-101.pkl
"""

from ..common.schedule_yolof import train_for as _train_for
from .yolof_r50_dc5_1x import dataloader, model, optimizer, train

model.backbone.bottom_up.depth = 101
optimizer.lr = 0.06
lr_multiplier = _train_for(1, train, dataloader, batch_size=32)
