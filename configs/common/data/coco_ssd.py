"""COCO 2017 as SSD512 trains on it: zoom out, crops by IoU, 512 x 512 pixels, distorted colours.

The whole images become squares of 512 pixels, also when testing.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from vfnet_yolof.data import Expand, MinIoURandomCrop, PhotoMetricDistortion

from .coco import dataloader

dataloader.train.mapper.augmentations = [
    L(Expand)(ratio=[1.0, 4.0], fill=[123.675, 116.28, 103.53], prob=0.5),
    L(MinIoURandomCrop)(min_ious=[0.1, 0.3, 0.5, 0.7, 0.9], min_share=0.3, shape=[0.5, 2.0]),
    L(T.Resize)(shape=[512, 512]),
    L(T.RandomFlip)(),
    L(PhotoMetricDistortion)(brightness=32.0, contrast=[0.5, 1.5], saturation=[0.5, 1.5], hue=18.0),
]
dataloader.train.total_batch_size = 64
dataloader.test.mapper.augmentations = [L(T.Resize)(shape=[512, 512])]
del dataloader.tta  # its sizes keep an image's shape; this detector has seen squares only
