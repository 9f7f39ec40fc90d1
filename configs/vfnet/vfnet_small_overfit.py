"""Overfit a few dozen images: the check that a detector and its data work at all.

Give the same annotations for training and validation; AP50 on them should pass 60.

    python tools/train_net.py --config-file vfnet/vfnet_small_overfit.py \\
        --train-json train.json --train-images train/ --val-json train.json --val-images train/
"""

from ..common.models.vfnet_small import model
from ..common.overfit_run import dataloader, lr_multiplier, optimizer, train
from ..common.overfit_run import resize as _resize

_resize(dataloader, short_edge_length=256, max_size=427)
dataloader.train.mapper.augmentations.pop()  # no flips
optimizer.params.bias_lr_factor = 2.0  # when overfitting, biases may run ahead
