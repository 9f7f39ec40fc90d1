"""VFNet-X-1200: VFNet-X-800's weights tested at 1800 x 1200 (the paper's table 4).

Published AP, not measured here: 54.5 on val2017, 55.1 on test-dev.
The training is that of vfnetx_r2_101_800.py; its weights are evaluated by

    python tools/train_net.py --config-file vfnet/vfnetx_r2_101_1200.py --eval-only \\
        train.init_checkpoint=output/vfnetx_r2_101_800/001/model_swa.pth
"""

from .vfnetx_r2_101_800 import dataloader, lr_multiplier, model, optimizer, train

dataloader.test.mapper.augmentations[0].short_edge_length = 1200
dataloader.test.mapper.augmentations[0].max_size = 1800
