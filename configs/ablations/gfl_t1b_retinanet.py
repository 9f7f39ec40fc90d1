"""GFL table 1b, "RetinaNet": the baseline.

Published AP on val2017, not measured here: 35.6. Schedule: 1x.
As in MMDetection 1.x, on which the table was made: smooth L1 with beta 0.11, gradients clipped at
a norm of 35, warm-up from a third. Boxes there were wider by a pixel, which is not repeated here.

    python tools/train_net.py --config-file ablations/gfl_t1b_retinanet.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..baselines.retinanet_mmdet_r50_fpn_1x import dataloader, model, optimizer, train
from ..common.schedule import step_schedule as _step_schedule

model.box_loss.beta = 0.11
train.clip_grad.enabled = True
lr_multiplier = _step_schedule([8, 11], 12, train.max_iter, warmup_factor=1 / 3)
