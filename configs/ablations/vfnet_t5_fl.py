"""VFNet table 5, "VFNet + FL": the full model with the focal loss.

Published AP on val2017, not measured here: 40.0. Schedule: 1x.
"""

from detectron2.config import LazyCall as L
from vfnet_yolof.modeling.losses import FocalLoss

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.cls_loss = L(FocalLoss)(alpha=0.25, gamma=2.0)
