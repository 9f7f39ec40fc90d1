"""YOLOF, CSPDarkNet-53, DC5, 9x: the first of the three phases of the paper's table 3.

Published AP on val2017, not measured here: 42.8, at 608 x 608.
As yolof_csp_d53_dc5_3x.py with 202,500 iterations, steps at 187,500 and 197,500.

    python tools/train_net.py --config-file yolof/yolof_csp_d53_dc5_9x.py --num-gpus 8 \\
        train.init_checkpoint=cspdarknet53.pth
"""

from ..common.schedule_yolof import train_for as _train_for
from .yolof_csp_d53_dc5_3x import dataloader, model, optimizer, train

lr_multiplier = _train_for(9, train, dataloader)
