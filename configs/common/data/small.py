"""Images of your own at a size that a CPU can train on: shorter side 320."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=320, max_size=533),
    L(T.RandomFlip)(),
]
dataloader.train.mapper.interpolation = "pil"
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 0
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=320, max_size=533)
]
dataloader.test.num_workers = 0
dataloader.tta.sizes = [[427, 256], [533, 320], [640, 384]]
