"""Learn a few dozen pictures by heart: the check that a detector and its data work at all.

Give the same annotations for training and validation; AP50 on them should pass 60.

    python tools/train_net.py --config-file vfnet/vfnet_small_overfit.py \\
        --train-json train.json --train-images train/ --val-json train.json --val-images train/
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from ..common.data.small import dataloader
from ..common.models.vfnet_small import model
from ..common.optim_small import optimizer
from ..common.schedule import step_schedule as _step_schedule
from ..common.train import train

_max_iter = 1200

# By heart: biases may run ahead, and nothing pulls the weights back.
optimizer.params.bias_lr_factor = 2.0
optimizer.weight_decay = 0.0001

dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=256, max_size=427)
]
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=256, max_size=427)
]
train.output_dir = "./output/vfnet_small_overfit"
train.max_iter = _max_iter
train.eval_period = 400
train.checkpointer.period = 400
train.reference_batch_size = 4
train.clip_grad.enabled = True
lr_multiplier = _step_schedule([70, 90], 100, _max_iter, warmup_iters=100)
