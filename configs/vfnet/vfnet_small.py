"""A small VFNet from scratch on data of your own, for a CPU or a first try.

    python tools/train_net.py --config-file vfnet/vfnet_small.py \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/
"""

from ..common.data.small import dataloader
from ..common.models.vfnet_small import model
from ..common.optim_small import optimizer
from ..common.schedule import step_schedule as _step_schedule
from ..common.train import train

_max_iter = 1500

train.output_dir = "./output/vfnet_small"
train.max_iter = _max_iter
train.eval_period = 500
train.checkpointer.period = 500
train.reference_batch_size = 4
train.clip_grad.enabled = True
lr_multiplier = _step_schedule([70, 90], 100, _max_iter, warmup_iters=100)
