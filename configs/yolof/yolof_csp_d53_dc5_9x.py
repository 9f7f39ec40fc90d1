"""YOLOF, CSPDarkNet-53, DC5, 9x: the first of the three phases of the paper's table 3.

Published AP on val2017, not measured here: 42.8, at 608 x 608.
As yolof_csp_d53_dc5_3x.py with 202,500 iterations, steps at 187,500 and 197,500.

    python tools/train_net.py --config-file yolof/yolof_csp_d53_dc5_9x.py --num-gpus 8 \\
        train.init_checkpoint=cspdarknet53.pth
"""

from ..common.schedule import step_schedule as _step_schedule
from .yolof_csp_d53_dc5_3x import dataloader, model, optimizer, train

_max_iter = 202500

train.output_dir = "./output/yolof_csp_d53_dc5_9x"
train.max_iter = _max_iter
lr_multiplier = _step_schedule(
    [187500, 197500], _max_iter, _max_iter, warmup_iters=1500, warmup_factor=1 / 1500
)
