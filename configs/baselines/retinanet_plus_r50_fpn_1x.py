"""RetinaNet+, ResNet-50, 1x (YOLOF table 1): RetinaNet with what YOLOF's decoder has.

Published AP on val2017, not measured here: 37.7. Schedule: 1x, 16 images a batch. GIoU loss, group
norm in the head, implicit objectness.

    python tools/train_net.py --config-file baselines/retinanet_plus_r50_fpn_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/MSRA/R-50.pkl
"""

from ..common.models.yolof_parts import retinanet_plus as _retinanet_plus
from .retinanet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

_retinanet_plus(model)
