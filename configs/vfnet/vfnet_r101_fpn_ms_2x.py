"""VFNet, ResNet-101, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 46.2 on val2017, 46.7 on test-dev, and 46.0 on test-dev with
the narrower range of scales (640 to 800). Both ranges and testing at 1333 x 900: see
vfnet_r50_fpn_ms_2x.py.

    python tools/train_net.py --config-file vfnet/vfnet_r101_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-101.pkl
"""

from .vfnet_r50_fpn_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
