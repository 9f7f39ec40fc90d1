"""RetinaNet, ResNet-50, 1x, as Detectron2 trains it (YOLOF table 1).

Published AP on val2017, not measured here: 35.9.
16 images a batch, 90,000 iterations, steps at 60,000 and 80,000, one scale; it starts from MSRA's
ImageNet weights. Other than Detectron2's, the losses are divided by the positives of the batch, not
by their moving average.

    python tools/train_net.py --config-file baselines/retinanet_r50_fpn_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/MSRA/R-50.pkl
"""

from ..common.data.coco_retinanet import dataloader
from ..common.models.retinanet import model
from ..common.optim_yolof import optimizer
from ..common.schedule import step_schedule as _step_schedule
from ..common.train import train

_max_iter = 90000

optimizer.lr = 0.01
optimizer.params.lr_factors = {}
train.max_iter = _max_iter
lr_multiplier = _step_schedule(
    [60000, 80000], _max_iter, _max_iter, warmup_iters=1000, warmup_factor=0.001
)
