"""COCO 2017 as YOLOF on CSPDarkNet trains on it: YOLOv4's augmentations, squares of 640 px.

Half of the samples are mosaics of 640 x 640 px, the others squares of 512 to 768 px. Tested on
squares of 608 px.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from vfnet_yolof.data import JitterCrop, Mosaic, RandomDistort, RandomShift, ResizeSquare

from .coco_yolof import dataloader

dataloader.train.mapper.augmentations = [
    L(JitterCrop)(ratio=0.3),
    L(ResizeSquare)(size=640, scale=[0.8, 1.2]),
    L(RandomDistort)(hue=0.1, saturation=1.5, exposure=1.5),
    L(T.RandomFlip)(),
    L(RandomShift)(max_shift=32, prob=0.5),
]
dataloader.train.mosaic = L(Mosaic)(size=640, min_offset=0.2, prob=0.5)
dataloader.test.mapper.augmentations = [L(T.Resize)(shape=[608, 608])]
del dataloader.tta  # its sizes keep an image's shape; this detector has seen squares only
