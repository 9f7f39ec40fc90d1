"""GFL, ResNet-101 with DCNv1, 2x with multi-scale training (MMDetection's model).

Published AP, not measured here: 47.1 on val2017.
DCNv1 in c3-c5, none in the head.
The paper's model is gfl_r101_dcnv2_fpn_ms_2x.py.

    python tools/train_net.py --config-file gfl/gfl_r101_dcnv1_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-101.pkl
"""

from ..common.models.variants import deformable as _deformable
from .gfl_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
_deformable(model, version=1)
