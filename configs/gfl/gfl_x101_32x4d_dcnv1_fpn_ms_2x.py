"""GFL, ResNeXt-101-32x4d with DCNv1, 2x with multi-scale training (MMDetection's model).

Published AP, not measured here: 48.1 on val2017.
DCNv1 in c4-c5, none in the head.
The paper's model is gfl_x101_32x4d_dcnv2_fpn_ms_2x.py.

    python tools/train_net.py --config-file gfl/gfl_x101_32x4d_dcnv1_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=resnext101_32x4d-a5af3160.pth
"""

from ..common.models.variants import deformable as _deformable
from ..common.models.variants import resnext101 as _resnext101
from .gfl_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_resnext101(model, groups=32, width=4)
_deformable(model, stages=(4, 5), version=1)
