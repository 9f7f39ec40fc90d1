"""VFNet table 5, "ATSS + GFL": ATSS with the quality focal loss.

Published AP on val2017, not measured here: 39.8. Schedule: 1x.
No configuration of the authors is known for it; what else is of the row with FL.

    python tools/train_net.py --config-file ablations/vfnet_t5_atss_gfl.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import QualityFocalLoss

from .vfnet_t5_atss_fl import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss = L(QualityFocalLoss)(beta=2.0)
