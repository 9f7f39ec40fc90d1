"""VFNet table 5, "FoveaBox + VFL": FoveaBox with the varifocal loss.

Published AP on val2017, not measured here: 37.2. Schedule: 1x, 4 GPUs with 4 images each.

    python tools/train_net.py --config-file ablations/vfnet_t5_foveabox_vfl.py --num-gpus 4 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import VarifocalLoss

from .vfnet_t5_foveabox_fl import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss = L(VarifocalLoss)(alpha=0.75, gamma=2.0)
