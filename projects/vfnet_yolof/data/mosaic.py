"""Four training images in one (YOLOv4), as a step of the loader."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .mapper import make_instances
from .transforms import WindowTransform

Sample = dict[str, Any]


class Mosaic:
    """Put pieces of four images around a random centre, with their boxes.

    Each image gives the piece at the corner that it fills: the one at the top left gives its top
    left part, and so on, leaving out borders that its own augmentations have filled
    (``content_box``). An image smaller than its piece lies at the centre, with black around.

    The three further images come from anywhere in the data set, drawn by the generator that
    belongs to this sample. The authors of YOLOF draw them from the 1,000 images that a worker has
    seen last, which depends on the worker and is lost when a run stops. Here the same seed gives
    the same images with any number of workers, and after a restart.
    """

    def __init__(
        self,
        size: int = 640,
        min_offset: float = 0.2,
        prob: float = 0.5,
        min_box_side: float = 1e-5,
    ) -> None:
        """Check and keep the options.

        Args:
            size: width and height of the result, px.
            min_offset: the centre keeps this share of ``size`` away from the borders.
            prob: how often a mosaic is made; otherwise the sample stays as it is.
            min_box_side: boxes with a side of at most this many px in their piece are dropped.

        Raises:
            ValueError: a number out of its range.
        """
        if size < 2:
            raise ValueError(f"size must be at least 2 px, got {size}")
        if not 0.0 <= min_offset <= 0.5:
            raise ValueError(f"min_offset must lie in [0, 0.5], got {min_offset}")
        if not 0.0 <= prob <= 1.0:
            raise ValueError(f"prob must lie in [0, 1], got {prob}")
        self.size = size
        self.min_offset = min_offset
        self.prob = prob
        self.min_box_side = min_box_side

    def __call__(self, sample: Sample, draw: Callable[[], Sample]) -> Sample:
        """Make a mosaic of a training sample of the mapper, or return it as it is.

        Args:
            sample: at the top left; the result keeps its other entries.
            draw: gives a further sample, of a random image.
        """
        if np.random.random() >= self.prob:
            return sample
        nearest = max(1, round(self.size * self.min_offset))
        centre = np.random.randint(nearest, self.size - nearest + 1, size=2).tolist()
        samples = [sample, draw(), draw(), draw()]
        canvas = np.empty((self.size, self.size, 3), dtype=np.uint8)
        boxes = []
        for index, one in enumerate(samples):
            corner = (index % 2, index // 2)  # x, y: 0 is left or top, 1 right or bottom
            x0, y0 = (c if far else 0 for c, far in zip(centre, corner, strict=True))
            x1, y1 = (self.size if far else c for c, far in zip(centre, corner, strict=True))
            window = _window(one, corner, (x1 - x0, y1 - y0))
            canvas[y0:y1, x0:x1] = window.apply_image(one["image"].permute(1, 2, 0).numpy())
            boxes.append(_boxes_in(one, window) + [x0, y0, x0, y0])
        classes = torch.cat([x["instances"].gt_classes for x in samples]).numpy()
        return {
            **sample,
            "image": torch.from_numpy(canvas.transpose(2, 0, 1).copy()),
            "content_box": torch.tensor([0.0, 0.0, self.size, self.size]),
            "instances": make_instances(
                canvas.shape[:2], np.concatenate(boxes), classes, self.min_box_side
            ),
        }


def _window(sample: Sample, corner: tuple[int, int], size: tuple[int, int]) -> WindowTransform:
    """The part of ``size`` px of a sample's image that lies at its ``corner``."""
    content = sample["content_box"].tolist()
    lengths = sample["image"].shape[:0:-1]  # width, height
    left, top = (
        max(int(content[2 + axis]) - size[axis], 0)
        if corner[axis]
        else min(math.ceil(content[axis]), lengths[axis] - size[axis])
        for axis in (0, 1)
    )
    return WindowTransform(left, top, *size)


def _boxes_in(sample: Sample, window: WindowTransform) -> np.ndarray:
    """(M, 4) float64 boxes of a sample in the pixels of a window, clipped to it."""
    boxes = sample["instances"].gt_boxes.tensor.numpy().astype(np.float64)
    if not len(boxes):
        return boxes
    width, height = window.width, window.height
    return window.apply_box(boxes).clip(0, [width, height, width, height])
