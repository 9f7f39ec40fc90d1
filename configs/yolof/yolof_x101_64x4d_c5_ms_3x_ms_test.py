"""YOLOF, ResNeXt-101 64x4d, C5, multi-scale training and testing, 3x (the paper's table 1).

Published AP on val2017, not measured here: 47.1. It tests the weights of
yolof_x101_64x4d_c5_ms_3x.py at the sizes of dataloader.tta:

    python tools/train_net.py --config-file yolof/yolof_x101_64x4d_c5_ms_3x_ms_test.py \\
        --eval-only --tta
"""

from .yolof_x101_64x4d_c5_ms_3x import dataloader, lr_multiplier, model, optimizer, train

train.init_checkpoint = "./output/yolof_x101_64x4d_c5_ms_3x/001/model_final.pth"
