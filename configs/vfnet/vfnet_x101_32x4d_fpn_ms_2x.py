"""VFNet, ResNeXt-101-32x4d, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 47.4 on val2017, 47.6 on test-dev, and 46.7 on test-dev with
the narrower range of scales (640 to 800). Both ranges and testing at 1333 x 900: see
vfnet_r50_fpn_ms_2x.py.

    python tools/train_net.py --config-file vfnet/vfnet_x101_32x4d_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=resnext101_32x4d-a5af3160.pth
"""

from ..common.models.variants import resnext101 as _resnext101
from .vfnet_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_resnext101(model, groups=32, width=4)
