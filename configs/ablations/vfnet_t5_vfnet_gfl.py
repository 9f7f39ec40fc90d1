"""VFNet table 5, "VFNet + GFL": VFNet with the quality focal loss.

Published AP on val2017, not measured here: 41.1. Schedule: 1x.

    python tools/train_net.py --config-file ablations/vfnet_t5_vfnet_gfl.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import QualityFocalLoss

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss = L(QualityFocalLoss)(beta=2.0)
