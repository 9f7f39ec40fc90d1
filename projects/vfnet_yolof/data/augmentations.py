"""Random changes of images for training, in Detectron2's form; sources in docs/data.md.

Numbers are drawn from numpy's global generator, which the loader seeds for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from detectron2.data import transforms as T

from .transforms import DistortTransform, FillTransform, WindowTransform

Number = TypeVar("Number", int, float)

# (width, height) px of the holes of VFNet-X, from the authors' configuration of it
CUTOUT_SHAPES = (
    *((4, 4), (4, 8), (8, 4), (8, 8)),
    *((16, 8), (8, 16), (16, 16)),
    *((16, 32), (32, 16), (32, 32)),
    *((32, 48), (48, 32), (48, 48)),
)


class RandomShift(T.Augmentation):
    """Shift the image by up to ``max_shift`` px in x and in y; its size stays (YOLOF).

    The border that opens is black. Boxes move along and are clipped.
    """

    def __init__(self, max_shift: int = 32, prob: float = 0.5) -> None:
        super().__init__()
        check_probability(prob)
        if max_shift < 0:
            raise ValueError(f"max_shift must not be negative, got {max_shift}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        dx, dy = np.random.randint(-self.max_shift, self.max_shift + 1, size=2).tolist()
        height, width = image.shape[:2]
        return WindowTransform(-dx, -dy, width, height)


class ResizeIndependentEdges(T.Augmentation):
    """Fit the image into a random size, its two edges drawn independently (VFNet-X).

    The image keeps its shape: the longer side is at most the drawn long edge and the shorter one
    at most the drawn short edge. Unlike a range of short edges under one limit, a wide image
    may meet a small limit at any short edge.
    """

    def __init__(self, long_edge: Sequence[int], short_edge: Sequence[int]) -> None:
        """Check and keep the options.

        Args:
            long_edge, short_edge: [least, greatest] px, both included.

        Raises:
            ValueError: a range that is none.
        """
        super().__init__()
        long_edge = checked_range("long_edge", long_edge, least=1)
        short_edge = checked_range("short_edge", short_edge, least=1)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        long, short = (np.random.randint(a, b + 1) for a, b in (self.long_edge, self.short_edge))
        height, width = image.shape[:2]
        return T.ResizeTransform(height, width, *fitted_size(height, width, long, short))


def fitted_size(height: int, width: int, long_edge: int, short_edge: int) -> tuple[int, int]:
    """(H, W) px that fills the two edges as far as it can; the shape stays, sides are rounded."""
    scale = min(long_edge / max(height, width), short_edge / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


class ResizeSquare(T.Augmentation):
    """Resize to a square of ``size`` px times a random factor, whatever the image's shape."""

    def __init__(self, size: int, scale: Sequence[float] = (1.0, 1.0)) -> None:
        """Check and keep the options.

        Args:
            size: width and height of the result, px, before the factor.
            scale: [least, greatest] factor on both sides.

        Raises:
            ValueError: a size or a range that is none.
        """
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1 px, got {size}")
        scale = checked_range("scale", scale, least=1 / size)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        side = int(self.size * self._rand_range(*self.scale))
        return T.ResizeTransform(*image.shape[:2], side, side)


class RelativeRangeCrop(T.Augmentation):
    """Crop to a random window whose sides are a share from ``min_share`` to 1 of the image's.

    Boxes are clipped, those outside are lost. A crop that would lose every box is not made
    (MMDetection's ``RandomCrop`` of type ``relative_range`` takes another image then).
    """

    def __init__(self, min_share: float = 0.75, prob: float = 0.5) -> None:
        super().__init__()
        check_probability(prob)
        if not 0.0 < min_share <= 1.0:
            raise ValueError(f"min_share must lie in (0, 1], got {min_share}")
        self._init(locals())

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> T.Transform:
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        size = np.array(image.shape[1::-1])
        window = (size * self._rand_range(self.min_share, 1.0, 2) + 0.5).astype(int).clip(1)
        corner = np.random.randint(0, size - window + 1)
        crop = WindowTransform(*corner.tolist(), *window.tolist())
        if boxes is not None and len(boxes):
            kept = np.minimum(boxes[:, 2:], corner + window) > np.maximum(boxes[:, :2], corner)
            if not kept.all(axis=1).any():
                return T.NoOpTransform()
        return crop


class JitterCrop(T.Augmentation):
    """Move each border of the image by up to a share ``ratio`` of its side, in or out (YOLOv4).

    What opens beyond the image has its mean colour. Boxes are clipped.
    """

    def __init__(self, ratio: float = 0.3) -> None:
        super().__init__()
        if not 0.0 <= ratio < 0.5:
            raise ValueError(f"ratio must lie in [0, 0.5), or nothing may be left; got {ratio}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        dx, dy = int(self.ratio * width), int(self.ratio * height)
        left, right = np.random.randint(-dx, dx + 1, size=2).tolist()
        top, bottom = np.random.randint(-dy, dy + 1, size=2).tolist()
        fill = image.mean(axis=(0, 1)).astype(image.dtype)
        return WindowTransform(left, top, width - left - right, height - top - bottom, fill)


class RandomDistort(T.Augmentation):
    """Turn the hue and scale saturation and exposure at random (YOLOv4); (H, W, 3) uint8 only."""

    def __init__(self, hue: float = 0.1, saturation: float = 1.5, exposure: float = 1.5) -> None:
        """Check and keep the options.

        Args:
            hue: greatest turn, as a share of the colour circle, either way.
            saturation, exposure: greatest factor s; drawn from [1, s], and inverted half of
                the time.

        Raises:
            ValueError: a hue outside [0, 0.5], or a factor below 1.
        """
        super().__init__()
        if not 0.0 <= hue <= 0.5:
            raise ValueError(f"hue must lie in [0, 0.5], got {hue}")
        for name, factor in (("saturation", saturation), ("exposure", exposure)):
            if factor < 1.0:
                raise ValueError(f"{name} must be at least 1, got {factor}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        hue = self._rand_range(-self.hue, self.hue)
        saturation, exposure = (
            self._rand_range(1.0, s) ** np.random.choice([-1, 1])
            for s in (self.saturation, self.exposure)
        )
        return DistortTransform(float(hue), float(saturation), float(exposure))


class CutOut(T.Augmentation):
    """Paint holes of random shapes at random places in one colour; boxes stay (VFNet-X).

    A hole's top left corner lies anywhere in the image, and what reaches beyond it is cut off.
    """

    def __init__(
        self,
        num_holes: Sequence[int] = (5, 10),
        shapes: Sequence[Sequence[int]] = CUTOUT_SHAPES,
        prob: float = 0.5,
        fill: int = 0,
    ) -> None:
        """Check and keep the options.

        Args:
            num_holes: [least, greatest], both included.
            shapes: (width, height) px, equally likely.
            prob: how often holes are painted.
            fill: of every channel, before the model subtracts its mean.

        Raises:
            ValueError: a range that is none, or no shapes, or empty ones.
        """
        super().__init__()
        check_probability(prob)
        num_holes = checked_range("num_holes", num_holes, least=0)
        shapes = tuple(tuple(int(side) for side in shape) for shape in shapes)
        if not shapes or any(len(shape) != 2 or min(shape) < 1 for shape in shapes):
            raise ValueError(f"shapes must be pairs (width, height) of at least 1 px, got {shapes}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        count = np.random.randint(self.num_holes[0], self.num_holes[1] + 1)
        corners = np.random.randint(0, image.shape[1::-1], size=(count, 2))
        sizes = np.array(self.shapes)[np.random.randint(len(self.shapes), size=count)]
        return FillTransform(np.concatenate([corners, corners + sizes], axis=1), self.fill)


def check_probability(prob: float) -> None:
    if not 0.0 <= prob <= 1.0:
        raise ValueError(f"prob must lie in [0, 1], got {prob}")


def checked_range(name: str, bounds: Sequence[Number], least: float) -> tuple[Number, Number]:
    """``bounds`` as a pair; ValueError unless it is [low, high] with least <= low <= high."""
    if len(bounds) != 2 or not least <= bounds[0] <= bounds[1]:
        raise ValueError(f"{name} must be [low, high], low at least {least:g}; got {list(bounds)}")
    return bounds[0], bounds[1]
