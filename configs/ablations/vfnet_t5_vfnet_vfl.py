"""VFNet table 5, "VFNet + VFL": VFNet with the varifocal loss.

Published AP on val2017, not measured here: 41.6. Schedule: 1x.
This is the paper's model itself: vfnet_r50_fpn_1x.

    python tools/train_net.py --config-file ablations/vfnet_t5_vfnet_vfl.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train
