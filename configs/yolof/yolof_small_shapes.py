"""A small YOLOF on the embedded shapes, for a CPU.

python tools/train_net.py --config-file yolof/yolof_small_shapes.py
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.data import RandomShift

from ..common.models.yolof_small import model
from ..common.shapes_run import dataloader, optimizer, train
from ..common.small_run import last_for as _last_for

model.num_classes = 6
dataloader.train.mapper.augmentations.append(L(RandomShift)(max_shift=8, prob=0.5))
lr_multiplier = _last_for(train, 1200)
