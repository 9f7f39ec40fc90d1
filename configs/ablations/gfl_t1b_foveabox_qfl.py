"""GFL table 1b, "FoveaBox + joint w/ QFL": classes learn the quality of boxes with QFL.

Published AP on val2017, not measured here: 37.0. Schedule: 1x.
The quality is the IoU of the predicted box with the ground truth.

    python tools/train_net.py --config-file ablations/gfl_t1b_foveabox_qfl.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import QualityFocalLoss

from .gfl_t1b_foveabox import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss = L(QualityFocalLoss)(beta=2.0)
