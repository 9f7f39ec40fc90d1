"""VFNet, ResNeXt-101-64x4d with DCNv2, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 50.4 on val2017, 50.8 on test-dev, and 49.9 on test-dev with
the narrower range of scales (640 to 800). Both ranges and testing at 1333 x 900: see
vfnet_r50_fpn_ms_2x.py.
DCNv2 in c3-c5 and as the last convolution of each of the head's towers.

    python tools/train_net.py --config-file vfnet/vfnet_x101_64x4d_dcn_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=resnext101_64x4d-ee2c6f71.pth
"""

from ..common.models.variants import deformable as _deformable
from ..common.models.variants import resnext101 as _resnext101
from .vfnet_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_resnext101(model, groups=64, width=4)
_deformable(model, head=True)
