"""GFL, ResNet-50, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 42.8 on val2017, 43.1 on test-dev.
24 epochs, steps at 16 and 22; the shorter side is drawn from 480 to 800, the longer one is at
most 1333.

    python tools/train_net.py --config-file gfl/gfl_r50_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from ..common.schedule import ITERATIONS_PER_EPOCH as _ITERATIONS_PER_EPOCH
from ..common.schedule import step_schedule as _step_schedule
from .gfl_r50_fpn_1x import dataloader, model, optimizer, train

_max_iter = 24 * _ITERATIONS_PER_EPOCH

dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=[480, 800], max_size=1333, sample_style="range"),
    L(T.RandomFlip)(),
]
train.output_dir = "./output/gfl_r50_fpn_ms_2x"
train.max_iter = _max_iter
lr_multiplier = _step_schedule([16, 22], 24, _max_iter, warmup_factor=1 / 3)
