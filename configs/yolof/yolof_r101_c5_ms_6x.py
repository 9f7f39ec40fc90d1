"""YOLOF, ResNet-101, C5, multi-scale training, 6x (the paper's table 2).

Published AP on val2017, not measured here: 43.7. 64 images a batch, 135,000 iterations. The shorter
side is drawn from 400 to 1400, the longer one is at most 1600.

    python tools/train_net.py --config-file yolof/yolof_r101_c5_ms_6x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/MSRA/R-101.pkl
"""

from ..common.data.coco_yolof_ms import dataloader
from ..common.schedule_yolof import train_for as _train_for
from .yolof_r101_c5_1x import model, optimizer, train

lr_multiplier = _train_for(6, train, dataloader)
