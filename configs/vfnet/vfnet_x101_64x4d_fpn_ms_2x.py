"""VFNet, ResNeXt-101-64x4d, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 48.2 on val2017, 48.5 on test-dev, and 47.4 on test-dev with
the narrower range of scales (640 to 800). Both ranges and testing at 1333 x 900: see
vfnet_r50_fpn_ms_2x.py.

    python tools/train_net.py --config-file vfnet/vfnet_x101_64x4d_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=resnext101_64x4d-ee2c6f71.pth
"""

from ..common.models.variants import resnext101 as _resnext101
from .vfnet_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_resnext101(model, groups=64, width=4)
