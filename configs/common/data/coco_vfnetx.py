"""COCO 2017 as VFNet-X trains on it (section 5.3 of the VFNet paper and the authors' config).

Crops before the resize and holes after it; the long edge is drawn from 750 to 2100 and the short
edge from 500 to 1400. Tested at 1333 x 800.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from vfnet_yolof.data import CutOut, RelativeRangeCrop, ResizeIndependentEdges

from .coco import dataloader

dataloader.train.mapper.augmentations = [
    L(RelativeRangeCrop)(min_share=0.75, prob=0.5),
    L(ResizeIndependentEdges)(long_edge=[750, 2100], short_edge=[500, 1400]),
    L(CutOut)(num_holes=[5, 10], prob=0.5),
    L(T.RandomFlip)(),
]
