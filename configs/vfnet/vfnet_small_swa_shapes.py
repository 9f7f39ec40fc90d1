"""Weight averaging after ``vfnet_small_shapes.py``: ten cycles of one epoch, on a CPU.

Each cycle takes the learning rate from 1 to 0.01 of its base along a half cosine, as VFNet-X does
in its last 18 epochs. A run of its own has a new optimizer; it starts from the last weights, since
the training before is too short for a best. ``tools/compare_runs.py --average`` compares the
average with its parts.

    python tools/train_net.py --config-file vfnet/vfnet_small_swa_shapes.py \\
        train.init_checkpoint=output/vfnet_small_shapes/001/model_final.pth
"""

from ..common.schedule import cyclic_schedule as _cyclic_schedule
from .vfnet_small_shapes import dataloader, model, optimizer, train

_cycles = 10

train.init_checkpoint = "./output/vfnet_small_shapes/001/model_final.pth"
train.max_iter = 50 * _cycles
train.eval_period = 0
train.checkpointer.period = 100
train.swa.enabled = True
train.swa.cycles = _cycles
train.swa.keep_parts = True
train.swa.bn_batches = 50
lr_multiplier = _cyclic_schedule(_cycles)
