"""YOLOF, CSPDarkNet-53, DC5, 3x: YOLOv4's augmentations, squares of 640 px (authors' table).

Published AP on val2017, not measured here: 41.2, at 608 x 608.
64 images a batch, 67,500 iterations, steps at 52,500 and 62,500, learning rate 0.04 for all parts.
A prediction is no negative above an IoU of 0.7, as in both codes; for the paper's 0.75 set
model.assigner.max_iou=0.75. What else they disagree on: configs/common/models/yolof_csp.py.

    python tools/train_net.py --config-file yolof/yolof_csp_d53_dc5_3x.py --num-gpus 8 \\
        train.init_checkpoint=cspdarknet53.pth
"""

from ..common.data.coco_csp import dataloader
from ..common.models.yolof_csp import model
from ..common.optim_yolof import optimizer
from ..common.schedule_yolof import train_for as _train_for
from ..common.train import train

optimizer.lr = 0.04
optimizer.params.lr_factors = {}
lr_multiplier = _train_for(3, train, dataloader)
