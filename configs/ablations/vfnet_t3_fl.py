"""VFNet table 3, row 1: raw VFNet (no star, no refinement) with the focal loss.

Published AP on val2017, not measured here: 39.0. Schedule: 1x. The head is that of row 2.
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import FocalLoss

from .vfnet_t3_vfl import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss = L(FocalLoss)(alpha=0.25, gamma=2.0)
