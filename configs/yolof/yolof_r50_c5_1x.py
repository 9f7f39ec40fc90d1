"""YOLOF, ResNet-50, C5, 1x (the paper's table 1).

Published AP on val2017, not measured here: 37.7 (repetitions differ by 0.3).
64 images a batch, 22,500 iterations, steps at 15,000 and 20,000; 1,500 iterations of warm-up from
a 1,500th of the learning rate, as in the authors' code. It starts from MSRA's ImageNet weights.
The published weights are MMDetection's (37.5), which want other resizing and padding than this:
docs/weights.md.

    python tools/train_net.py --config-file yolof/yolof_r50_c5_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/MSRA/R-50.pkl
"""

from ..common.data.coco_yolof import dataloader
from ..common.models.yolof import model
from ..common.optim_yolof import optimizer
from ..common.schedule_yolof import train_for as _train_for
from ..common.train import train

lr_multiplier = _train_for(1, train, dataloader)
