"""YOLOF, ResNet-50, C5, 3x.

The paper has no such row; it is a longer run of the 1x model: 64 images a batch, 67,500 iterations.

    python tools/train_net.py --config-file yolof/yolof_r50_c5_3x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/MSRA/R-50.pkl
"""

from ..common.schedule_yolof import train_for as _train_for
from .yolof_r50_c5_1x import dataloader, model, optimizer, train

lr_multiplier = _train_for(3, train, dataloader)
