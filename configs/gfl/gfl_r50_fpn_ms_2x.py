"""GFL, ResNet-50, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 42.8 on val2017, 43.1 on test-dev.
24 epochs, steps at 16 and 22; the shorter side is drawn from 480 to 800, the longer one is at
most 1333.

    python tools/train_net.py --config-file gfl/gfl_r50_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..common.data.multi_scale import multi_scale as _multi_scale
from ..common.schedule import max_iter_2x as _max_iter
from ..common.schedule import step_schedule as _step_schedule
from .gfl_r50_fpn_1x import dataloader, model, optimizer, train

_multi_scale(dataloader, 480, 800)
train.max_iter = _max_iter
lr_multiplier = _step_schedule([16, 22], 24, _max_iter, warmup_factor=1 / 3)
