"""YOLOF figures 1 and 3, MiMo: RetinaNet on FPN's five levels.

Published AP on val2017, not measured here: 35.9. Schedule: 1x, 16 images a batch. Nine anchors at
each location. The other encoders are in yolof_fig1_simo.py, yolof_fig1_miso.py, yolof_fig1_siso.py.
"""

from ..baselines.retinanet_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train
