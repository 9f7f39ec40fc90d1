"""RetinaNet, ResNet-50, 1x, as MMDetection trains it.

Published AP on val2017 (MMDetection's model zoo), not measured here: 36.5. Detectron2's RetinaNet,
the baseline of YOLOF's table 1, is retinanet_r50_fpn_1x.
16 images a batch, 12 epochs, steps at 8 and 11, 500 iterations of warm-up from 0.001.

    python tools/train_net.py --config-file baselines/retinanet_mmdet_r50_fpn_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..common.data.coco import dataloader
from ..common.models.retinanet_mmdet import model
from ..common.optim_mmdet import optimizer
from ..common.schedule import max_iter_1x as _max_iter
from ..common.schedule import step_schedule as _step_schedule
from ..common.train import train

train.max_iter = _max_iter
lr_multiplier = _step_schedule([8, 11], 12, _max_iter, warmup_factor=0.001)
