"""VFNet table 5, "ATSS + VFL": ATSS with the varifocal loss.

Published AP on val2017, not measured here: 40.2. Schedule: 1x.

    python tools/train_net.py --config-file ablations/vfnet_t5_atss_vfl.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import VarifocalLoss

from .vfnet_t5_atss_fl import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss = L(VarifocalLoss)(alpha=0.75, gamma=2.0)
