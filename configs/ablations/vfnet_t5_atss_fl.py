"""VFNet table 5, "ATSS + FL": ATSS with the focal loss.

Published AP on val2017, not measured here: 39.3. Schedule: 1x.
The divisor of the box loss is that of VFNet's authors, and the warm-up starts at 0.1.

    python tools/train_net.py --config-file ablations/vfnet_t5_atss_fl.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..atss.atss_r50_fpn_1x import dataloader, model, optimizer, train
from ..common.schedule import step_schedule as _step_schedule

model.min_quality_sum = 1e-12
lr_multiplier = _step_schedule([8, 11], 12, train.max_iter, warmup_factor=0.1)
