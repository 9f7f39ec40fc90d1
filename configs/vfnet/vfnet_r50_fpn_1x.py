"""VFNet, ResNet-50, 1x (the paper's ablation model, table 2 row 3 and table 3 row 4).

Published AP, not measured here: 41.6 on val2017, 41.6 on test-dev.
16 images a batch, 12 epochs, steps at 8 and 11.

    python tools/train_net.py --config-file vfnet/vfnet_r50_fpn_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..common.data.coco import dataloader
from ..common.models.vfnet import model
from ..common.optim import optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train
