"""A small GFL on the embedded shapes, for a CPU.

python tools/train_net.py --config-file gfl/gfl_small_shapes.py
"""

from ..common.data.shapes import dataloader
from ..common.models.gfl_small import model
from ..common.optim_small import optimizer
from ..common.schedule import step_schedule as _step_schedule
from ..common.train import train

_max_iter = 1500

model.num_classes = 6
train.output_dir = "./output/gfl_small_shapes"
train.max_iter = _max_iter
train.eval_period = 500
train.checkpointer.period = 500
train.reference_batch_size = 8
train.clip_grad.enabled = True
lr_multiplier = _step_schedule([70, 90], 100, _max_iter, warmup_iters=100)
