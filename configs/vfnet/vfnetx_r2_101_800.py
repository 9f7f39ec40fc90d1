"""VFNet-X-800: Res2Net-101 with DCNv2, tested at 1333 x 800 (the paper's table 4).

Published AP, not measured here: 53.4 on val2017, 53.7 on test-dev.
41 epochs with steps at 36 and 40, then 18 epochs of cyclic learning rate whose weights are averaged
(SWA). As in the authors' code these begin with a new optimizer and the best of the evaluated
checkpoints. Crops, holes and scales from 750 x 500 to 2100 x 1400.

    python tools/train_net.py --config-file vfnet/vfnetx_r2_101_800.py --num-gpus 8 \\
        train.init_checkpoint=res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth
"""

from ..common.data.coco_vfnetx import dataloader
from ..common.models.vfnetx import model
from ..common.optim import optimizer
from ..common.schedule import ITERATIONS_PER_EPOCH as _ITERATIONS_PER_EPOCH
from ..common.schedule import step_then_cyclic_schedule as _step_then_cyclic_schedule
from ..common.train import train

_epochs, _cycles = 41, 18

train.max_iter = (_epochs + _cycles) * _ITERATIONS_PER_EPOCH
train.swa.enabled = True
train.swa.start = _epochs / (_epochs + _cycles)
train.swa.cycles = _cycles
train.swa.fresh_optimizer = True
train.swa.from_best = True
lr_multiplier = _step_then_cyclic_schedule([36, 40], _epochs, _cycles, train.max_iter)
