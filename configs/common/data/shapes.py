"""The embedded data set of drawn shapes, at its own size."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.dataset.names = "shapes_train"
dataloader.train.dataset.filter_empty = False
dataloader.train.mapper.augmentations = [L(T.RandomFlip)()]
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 0
dataloader.test.dataset.names = "shapes_val"
dataloader.test.mapper.augmentations = []
dataloader.test.num_workers = 0
dataloader.tta.sizes = [[128, 128], [160, 160], [192, 192]]
