"""Learn a few dozen pictures by heart with the paper's geometry at a quarter of its scale.

The shorter side is 200 px, the feature has stride 8 and the five anchors are 8 to 128 px: a box
finds the anchors that it would find at 800 px with stride 32 and 32 to 512 px. Give the same
annotations for training and validation.

    python tools/train_net.py --config-file yolof/yolof_small_overfit.py \\
        --train-json train.json --train-images train/ --val-json train.json --val-images train/
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from vfnet_yolof.data import RandomShift

from ..common.data.small import dataloader
from ..common.models.yolof_small import model
from ..common.optim_small import optimizer
from ..common.schedule import step_schedule as _step_schedule
from ..common.train import train

_max_iter = 1200

# By heart: nothing pulls the weights back.
optimizer.weight_decay = 0.0001

model.backbone.bottom_up.out_features = ["res3"]
model.backbone.in_feature = "res3"
model.backbone.dilations = [2, 4, 6, 8]
model.head.num_anchors = 5
model.anchor_generator.sizes = [[8, 16, 32, 64, 128]]
model.anchor_generator.strides = [8]
model.box_coder.center_clamp = 8.0
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=200, max_size=333),
    L(T.RandomFlip)(),
    L(RandomShift)(max_shift=8, prob=0.5),
]
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=200, max_size=333)
]
train.output_dir = "./output/yolof_small_overfit"
train.max_iter = _max_iter
train.eval_period = 400
train.checkpointer.period = 400
train.reference_batch_size = 4
train.clip_grad.enabled = True
lr_multiplier = _step_schedule([70, 90], 100, _max_iter, warmup_iters=100)
