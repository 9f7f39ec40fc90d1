"""A small YOLOF on the embedded shapes, for a CPU.

python tools/train_net.py --config-file yolof/yolof_small_shapes.py
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.data import RandomShift

from ..common.data.shapes import dataloader
from ..common.models.yolof_small import model
from ..common.optim_small import optimizer
from ..common.schedule import step_schedule as _step_schedule
from ..common.train import train

_max_iter = 1200

model.num_classes = 6
dataloader.train.mapper.augmentations.append(L(RandomShift)(max_shift=8, prob=0.5))
train.output_dir = "./output/yolof_small_shapes"
train.max_iter = _max_iter
train.eval_period = 400
train.checkpointer.period = 400
train.reference_batch_size = 8
train.clip_grad.enabled = True
lr_multiplier = _step_schedule([70, 90], 100, _max_iter, warmup_iters=100)
