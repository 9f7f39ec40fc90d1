"""GFL, ResNet-50, 1x (the paper's ablation model, table 3 row 4).

Published AP, not measured here: 40.2 on val2017, 40.3 on test-dev.
16 images a batch, 12 epochs, steps at 8 and 11. Optimiser and warm-up are the authors': biases
learn twice as fast and do not decay, 500 iterations from a third of the learning rate.

    python tools/train_net.py --config-file gfl/gfl_r50_fpn_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..common.data.coco import dataloader
from ..common.models.gfl import model
from ..common.optim import optimizer
from ..common.schedule import max_iter_1x as _max_iter
from ..common.schedule import step_schedule as _step_schedule
from ..common.train import train

train.max_iter = _max_iter
lr_multiplier = _step_schedule([8, 11], 12, _max_iter, warmup_factor=1 / 3)
