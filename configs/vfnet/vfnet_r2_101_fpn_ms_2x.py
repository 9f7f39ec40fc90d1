"""VFNet, Res2Net-101, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 49.2 on val2017, 49.3 on test-dev, and 48.4 on test-dev with
the narrower range of scales (640 to 800). Both ranges and testing at 1333 x 900: see
vfnet_r50_fpn_ms_2x.py.

    python tools/train_net.py --config-file vfnet/vfnet_r2_101_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth
"""

from ..common.models.variants import res2net101 as _res2net101
from .vfnet_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

_res2net101(model)
