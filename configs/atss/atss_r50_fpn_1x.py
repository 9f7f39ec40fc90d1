"""ATSS, ResNet-50, 1x, as it was published: deltas of one square anchor for each location.

Published AP on val2017 (MMDetection's model zoo), not measured here: 39.4.
16 images a batch, 12 epochs, steps at 8 and 11, 500 iterations of warm-up from 0.001.

    python tools/train_net.py --config-file atss/atss_r50_fpn_1x.py --num-gpus 8 \\
        train.init_checkpoint=detectron2://ImageNetPretrained/torchvision/R-50.pkl
"""

from ..baselines.retinanet_mmdet_r50_fpn_1x import dataloader, lr_multiplier, optimizer, train
from ..common.models.atss_deltas import model
