"""VFNet table 3, row 3: varifocal loss and star-shaped features, no refinement.

Published AP on val2017, not measured here: 40.7. Schedule: 1x. The initial box is the only one,
with the weight of the final box's loss; star features serve the classification.
"""

from ..vfnet.vfnet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.head.refine = False
