"""GFL, ResNet-101 with DCNv2, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 47.2 on val2017, 47.3 on test-dev.
DCNv2 in c3-c5, none in the head, as in the authors' code.

    python tools/train_net.py --config-file gfl/gfl_r101_dcnv2_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-101.pkl
"""

from ..common.models.variants import deformable as _deformable
from .gfl_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
_deformable(model)
