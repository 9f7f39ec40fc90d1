"""VFNet, ResNet-50, 2x with multi-scale training (the paper's table 4).

Published AP, not measured here: 44.5 on val2017, 44.8 on test-dev.
24 epochs, steps at 16 and 22; the shorter side is drawn from 480 to 960, the longer one is at
most 1333. The paper's other range, 640 to 800 (44.3 on test-dev), is

    dataloader.train.mapper.augmentations.0.short_edge_length=[640,800]

and testing at 1333 x 900, which the paper reports to gain about 0.4 AP, is

    dataloader.test.mapper.augmentations.0.short_edge_length=900

    python tools/train_net.py --config-file vfnet/vfnet_r50_fpn_ms_2x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..common.data.multi_scale import multi_scale as _multi_scale
from ..common.schedule import lr_multiplier_2x as lr_multiplier
from ..common.schedule import max_iter_2x as _max_iter
from .vfnet_r50_fpn_1x import dataloader, model, optimizer, train

_multi_scale(dataloader, 480, 960)
train.max_iter = _max_iter
