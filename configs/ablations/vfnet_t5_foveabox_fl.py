"""VFNet table 5, "FoveaBox + FL": FoveaBox with the focal loss.

Published AP on val2017, not measured here: 36.3. Schedule: 1x, 4 GPUs with 4 images each.
The warm-up starts at 0.1, as in the authors' configurations of this table.

    python tools/train_net.py --config-file ablations/vfnet_t5_foveabox_fl.py --num-gpus 4 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..common.schedule import step_schedule as _step_schedule
from ..foveabox.foveabox_r50_fpn_1x import dataloader, model, optimizer, train

lr_multiplier = _step_schedule([8, 11], 12, train.max_iter, warmup_factor=0.1)
