"""VFNet table 5, "FoveaBox + GFL": FoveaBox with the quality focal loss.

Published AP on val2017, not measured here: 36.9. Schedule: 1x, 4 GPUs with 4 images each.
No configuration of the authors is known for it; what else is of the row with FL.

    python tools/train_net.py --config-file ablations/vfnet_t5_foveabox_gfl.py --num-gpus 4 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import QualityFocalLoss

from .vfnet_t5_foveabox_fl import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss = L(QualityFocalLoss)(beta=2.0)
