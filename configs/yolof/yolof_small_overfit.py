"""Overfit a few dozen images with the paper's geometry at a quarter of its scale.

The shorter side is 200 px, the feature has stride 8 and the five anchors are 8 to 128 px: a box
finds the anchors that it would find at 800 px with stride 32 and 32 to 512 px. Give the same
annotations for training and validation.

    python tools/train_net.py --config-file yolof/yolof_small_overfit.py \\
        --train-json train.json --train-images train/ --val-json train.json --val-images train/
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.data import RandomShift

from ..common.models.yolof_small import model
from ..common.overfit_run import dataloader, lr_multiplier, optimizer, train
from ..common.overfit_run import resize as _resize

_resize(dataloader, short_edge_length=200, max_size=333)
dataloader.train.mapper.augmentations.append(L(RandomShift)(max_shift=8, prob=0.5))
