"""VFNet table 3, last row: the FCOS+ATSS baseline with centerness.

Published AP on val2017, not measured here: 39.2. Schedule: 1x. Focal loss, four convolutions,
GIoU loss with weight 2 as in the reference's ATSS, weighted by centerness.
"""

from ..common.models.atss import model
from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, optimizer, train

train.output_dir = "./output/ablations/vfnet_t3_fcos_atss"
