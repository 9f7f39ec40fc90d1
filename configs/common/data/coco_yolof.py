"""COCO 2017 as YOLOF trains on it: 1333 x 800, flips, shifts of up to 32 px; B, G, R."""

from detectron2.config import LazyCall as L
from vfnet_yolof.data import RandomShift

from .coco import dataloader

dataloader.train.mapper.augmentations.append(L(RandomShift)(max_shift=32, prob=0.5))
dataloader.train.mapper.image_format = "BGR"
dataloader.train.mapper.interpolation = "pil"
dataloader.train.total_batch_size = 64
# as in HTC's test setting, which the paper names for its multi-scale testing
dataloader.tta.sizes = [[900, 600], [1200, 800], [1500, 1000], [1800, 1200], [2100, 1400]]
