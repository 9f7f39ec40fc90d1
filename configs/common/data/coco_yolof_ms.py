"""YOLOF's multi-scale training: shorter side 400 to 1400, longer side at most 1600 (appendix A)."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco_yolof import dataloader

dataloader.train.mapper.augmentations[0] = L(T.ResizeShortestEdge)(
    short_edge_length=[400, 1400], max_size=1600, sample_style="range"
)
