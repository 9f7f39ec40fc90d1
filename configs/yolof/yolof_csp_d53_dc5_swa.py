"""YOLOF, CSPDarkNet-53, DC5, averaged weights: the last of the three phases of table 3.

Published AP, not measured here: 44.3 on test-dev; no AP on val2017 is published.
9x, 3x and this 3x make the table's 15x. It averages 12 checkpoints, one at the end of each of 12
equal cycles, in which the learning rate falls along a half cosine to a hundredth. The paper cites
the recipe (Zhang et al., 2020) without giving its numbers; as in that recipe's code this run starts
with a new optimizer, as every run does, from the best of the second phase's evaluated checkpoints.

    python tools/train_net.py --config-file yolof/yolof_csp_d53_dc5_swa.py --num-gpus 8
"""

from ..common.schedule import cyclic_schedule as _cyclic_schedule
from .yolof_csp_d53_dc5_9x_stage2_3x import dataloader, model, optimizer, train

_cycles = 12

train.init_checkpoint = "./output/yolof_csp_d53_dc5_9x_stage2_3x/001/model_best.pth"
train.swa.enabled = True
train.swa.cycles = _cycles
lr_multiplier = _cyclic_schedule(_cycles)
