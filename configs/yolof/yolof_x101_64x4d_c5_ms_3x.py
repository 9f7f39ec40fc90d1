"""YOLOF, ResNeXt-101 64x4d, C5, multi-scale training, 3x (the paper's table 1).

Published AP on val2017, not measured here: 44.7; 47.1 with multi-scale testing. 32 images a batch,
135,000 iterations.

    python tools/train_net.py --config-file yolof/yolof_x101_64x4d_c5_ms_3x.py --num-gpus 8 \\
        train.init_checkpoint=catalog://ImageNetPretrained/FAIR/X-101-64x4d
"""

from ..common.data.coco_yolof_ms import dataloader
from ..common.schedule_yolof import train_for as _train_for
from .yolof_x101_64x4d_c5_1x import model, optimizer, train

lr_multiplier = _train_for(3, train, dataloader, batch_size=32)
