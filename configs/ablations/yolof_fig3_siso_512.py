"""YOLOF figure 3, SiSo with C = 512: one level from C5 alone, encoder and decoder twice as wide.

Published only as a bar of the figure, not measured here. Schedule: 1x, 16 images a batch.
Else as yolof_fig1_siso.py.
"""

from .yolof_fig1_siso import dataloader, lr_multiplier, model, optimizer, train

model.backbone.out_channels = model.head.conv_channels = 512
