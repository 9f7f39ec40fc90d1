"""YOLOF, CSPDarkNet-53, DC5, 9x, with the paper's threshold: the first phase of table 3.

Published AP on val2017, not measured here: 42.8, at 608 x 608. As yolof_csp_d53_dc5_9x.py, whose
0.7 is that of both codes, with no negatives above an IoU of 0.75, as the paper's appendix has it.
"""

from .yolof_csp_d53_dc5_9x import dataloader, lr_multiplier, model, optimizer, train

model.assigner.max_iou = 0.75
