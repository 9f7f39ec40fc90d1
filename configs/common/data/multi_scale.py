"""Multi-scale training: the shorter side is drawn anew for each image, flips stay."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L


def multi_scale(dataloader, shortest, longest):
    """Any shorter side from ``shortest`` to ``longest`` pixels; the longer one is at most 1333."""
    dataloader.train.mapper.augmentations[0] = L(T.ResizeShortestEdge)(
        short_edge_length=[shortest, longest], max_size=1333, sample_style="range"
    )
