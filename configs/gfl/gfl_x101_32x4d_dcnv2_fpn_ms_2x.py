"""GFL, ResNeXt-101-32x4d with DCNv2, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 48.3 on val2017, 48.2 on test-dev.
DCNv2 in c3-c5, none in the head, as in the authors' code.

    python tools/train_net.py --config-file gfl/gfl_x101_32x4d_dcnv2_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=resnext101_32x4d-a5af3160.pth
"""

from ..common.models.variants import deformable as _deformable
from ..common.models.variants import resnext101 as _resnext101
from .gfl_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_resnext101(model, groups=32, width=4)
_deformable(model)
