"""YOLOF, CSPDarkNet-53, DC5, 3x after the 9x: the second of the three phases of table 3.

Published AP on val2017, not measured here: 43.2, at 608 x 608.
It starts from the model of yolof_csp_d53_dc5_9x.py; a prediction is no negative above an IoU of
0.8, as in the paper and both codes. Otherwise the recipe is that of yolof_csp_d53_dc5_3x.py.

    python tools/train_net.py --config-file yolof/yolof_csp_d53_dc5_9x_stage2_3x.py --num-gpus 8
"""

from .yolof_csp_d53_dc5_3x import dataloader, lr_multiplier, model, optimizer, train

model.assigner.max_iou = 0.8
train.init_checkpoint = "./output/yolof_csp_d53_dc5_9x/001/model_final.pth"
