"""GFL, ResNeXt-101-32x4d, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 45.7 on val2017, 46.0 on test-dev.
MMDetection's training of the same model: 45.9 on val2017.

    python tools/train_net.py --config-file gfl/gfl_x101_32x4d_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=resnext101_32x4d-a5af3160.pth
"""

from ..common.models.variants import resnext101 as _resnext101
from .gfl_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_resnext101(model, groups=32, width=4)
