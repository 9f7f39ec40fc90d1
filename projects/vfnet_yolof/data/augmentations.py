"""Random changes of pictures for training, in Detectron2's form; sources in docs/data.md.

Numbers are drawn from numpy's global generator, which the loader seeds for each sample.
"""

from __future__ import annotations

import numpy as np
from detectron2.data import transforms as T

from .transforms import WindowTransform


class RandomShift(T.Augmentation):
    """Shift the picture by up to ``max_shift`` px in x and in y; its size stays (YOLOF).

    The border that opens is black. Boxes move along and are clipped.
    """

    def __init__(self, max_shift: int = 32, prob: float = 0.5) -> None:
        super().__init__()
        _check_probability(prob)
        if max_shift < 0:
            raise ValueError(f"max_shift must not be negative, got {max_shift}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        dx, dy = np.random.randint(-self.max_shift, self.max_shift + 1, size=2).tolist()
        height, width = image.shape[:2]
        return WindowTransform(-dx, -dy, width, height)


def _check_probability(prob: float) -> None:
    if not 0.0 <= prob <= 1.0:
        raise ValueError(f"prob must lie in [0, 1], got {prob}")
