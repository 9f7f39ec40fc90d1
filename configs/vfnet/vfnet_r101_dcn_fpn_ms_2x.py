"""VFNet, ResNet-101 with DCNv2, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 49.0 on val2017, 49.2 on test-dev, and 48.4 on test-dev with
the narrower range of scales (640 to 800). Both ranges and testing at 1333 x 900: see
vfnet_r50_fpn_ms_2x.py.
DCNv2 in c3-c5 and as the last convolution of each of the head's towers.

    python tools/train_net.py --config-file vfnet/vfnet_r101_dcn_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-101.pkl
"""

from ..common.models.variants import deformable as _deformable
from .vfnet_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
_deformable(model, head=True)
