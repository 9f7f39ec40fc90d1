"""VFNet table 3, row 2: raw VFNet (no star, no refinement) with the varifocal loss.

Published AP on val2017, not measured here: 40.1. Schedule: 1x. The head is FCOS's, with four
convolutions and without its centerness branch; as in the authors' raw head, boxes begin at 64 to
1024 pixels, weigh as much as their IoU, and their loss has the divisor of VFNet's.
"""

from ..common.models.atss import model as _atss
from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.head = _atss.head
model.head.representation.unit = 8.0  # strides: the 64 to 1024 pixels
model.head.quality = False
