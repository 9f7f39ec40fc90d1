"""VFNet table 3, last row: the FCOS+ATSS baseline with centerness.

Published AP on val2017, not measured here: 39.2. Schedule: 1x. Focal loss, four convolutions,
GIoU loss with weight 2 as in the reference's ATSS, weighted by centerness. Divisors are those of
VFNet's authors: positives, at least 1 for each image, and for boxes the sum of centerness, whatever
it is above 1e-12. Their code has a centerness branch with boxes that are deltas of anchors only;
here sides are exp(x) strides from a point, as the row's name says.
"""

from ..common.models.atss import model
from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, optimizer, train
