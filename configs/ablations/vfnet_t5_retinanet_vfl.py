"""VFNet table 5, "RetinaNet + VFL": RetinaNet with the varifocal loss.

Published AP on val2017, not measured here: 37.4. Schedule: 1x, 4 GPUs with 4 images each.
As in the authors' code for this detector, locations in the padding are left out.

    python tools/train_net.py --config-file ablations/vfnet_t5_retinanet_vfl.py --num-gpus 4 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import VarifocalLoss

from .vfnet_t5_retinanet_fl import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss = L(VarifocalLoss)(alpha=0.75, gamma=2.0, padding_is_negative=False, min_iou=0.0)
