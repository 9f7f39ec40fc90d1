"""SSD's random changes of images for training (SSD, section 2.2 and 3.6), as MMDetection has them.

Numbers are drawn from numpy's global generator, which the loader seeds for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data import transforms as T

from .augmentations import check_probability, checked_range
from .transforms import PixelTransform, WindowTransform


class Expand(T.Augmentation):
    """Put the image at a random place in a larger one of the data's mean colour ("zoom out")."""

    def __init__(
        self,
        ratio: Sequence[float] = (1.0, 4.0),
        fill: Sequence[float] = (123.675, 116.28, 103.53),
        prob: float = 0.5,
    ) -> None:
        """Check and keep the options.

        Args:
            ratio: [least, greatest] of both sides in those of the image.
            fill: one number for each channel, in the images' order.
            prob: how often it is done.

        Raises:
            ValueError: a range that is none, or no probability.
        """
        super().__init__()
        check_probability(prob)
        ratio = checked_range("ratio", ratio, least=1.0)
        fill = tuple(fill)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        ratio = self._rand_range(*self.ratio)
        left, top = (int(self._rand_range(0.0, x * ratio - x)) for x in (width, height))
        fill = np.asarray(self.fill).astype(image.dtype).tolist()
        return WindowTransform(-left, -top, int(width * ratio), int(height * ratio), fill)


class MinIoUCropTransform(WindowTransform):
    """A window that some boxes do not survive: ``lost`` (L,) are their row numbers.

    They become empty, and are dropped like others without area.
    """

    def __init__(self, left: int, top: int, width: int, height: int, lost: np.ndarray) -> None:
        super().__init__(left, top, width, height)
        self.lost = np.asarray(lost, dtype=np.int64)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """(N, 4) xyxy px in the image -> the same in the window, not clipped."""
        moved = super().apply_box(box)
        moved[self.lost] = 0.0
        return moved


class MinIoURandomCrop(T.Augmentation):
    """Crop so that every box overlaps the window by at least a drawn IoU.

    The IoU is drawn from 1 (the whole image), ``min_ious`` and 0 (any window). A window that does
    not do is drawn again, up to 50 times, then another IoU. Of the boxes those whose centre lies
    in the window stay, clipped.
    """

    tries = 50

    def __init__(
        self,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_share: float = 0.3,
        shape: Sequence[float] = (0.5, 2.0),
    ) -> None:
        """Check and keep the options.

        Args:
            min_ious: see above.
            min_share: least side of a window, in the image's.
            shape: [least, greatest] height of a window, in its width.

        Raises:
            ValueError: a number is out of range.
        """
        super().__init__()
        if not all(0.0 <= x <= 1.0 for x in min_ious):
            raise ValueError(f"min_ious must lie in [0, 1], got {list(min_ious)}")
        if not 0.0 < min_share <= 1.0:
            raise ValueError(f"min_share must lie in (0, 1], got {min_share}")
        shape = checked_range("shape", shape, least=1e-3)
        min_ious = tuple(min_ious)
        self._init(locals())

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> T.Transform:
        boxes = np.zeros((0, 4)) if boxes is None else boxes
        height, width = image.shape[:2]
        while True:
            min_iou = np.random.choice([1.0, *self.min_ious, 0.0])
            if min_iou == 1.0:
                return T.NoOpTransform()
            for _ in range(self.tries):
                if (window := self._window(width, height)) is None:
                    continue
                x1, y1, x2, y2 = window
                centers = (boxes[:, :2] + boxes[:, 2:]) / 2
                inside = ((centers > window[:2]) & (centers < window[2:])).all(axis=1)
                if len(boxes) and (_ious(window, boxes).min() < min_iou or not inside.any()):
                    continue
                return MinIoUCropTransform(x1, y1, x2 - x1, y2 - y1, np.flatnonzero(~inside))

    def _window(self, width: int, height: int) -> np.ndarray | None:
        """(4,) xyxy px, or None where the drawn sides do not do."""
        w, h = (self._rand_range(self.min_share * x, x) for x in (width, height))
        if not self.shape[0] <= h / w <= self.shape[1]:
            return None
        left, top = self._rand_range(0.0, width - w), self._rand_range(0.0, height - h)
        window = np.array([left, top, left + w, top + h]).astype(int)
        return window if (window[2:] > window[:2]).all() else None


class PhotoMetricTransform(PixelTransform):
    """Brightness, contrast, saturation, hue and the order of the channels; boxes stay.

    The result is float32 and may leave [0, 255].

    Args:
        brightness: added to each value. contrast, saturation: factors. hue: turn in degrees.
        contrast_first: before saturation and hue, else after them.
        order: the channels' order, (3,) of 0, 1, 2.

    Images are taken as R, G, B; for B, G, R hues turn the other way.
    """

    def __init__(
        self,
        brightness: float,
        contrast: float,
        saturation: float,
        hue: float,
        contrast_first: bool,
        order: Sequence[int],
    ) -> None:
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, 3) -> the same, float32."""
        img = img.astype(np.float32) + np.float32(self.brightness)
        if self.contrast_first:
            img *= np.float32(self.contrast)
        if self.saturation != 1 or self.hue != 0:
            hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV)
            hsv[..., 1] *= np.float32(self.saturation)
            if self.saturation > 1:
                hsv[..., 1] = hsv[..., 1].clip(0, 1)
            hsv[..., 0] = (hsv[..., 0] + np.float32(self.hue)) % 360
            img = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if not self.contrast_first:
            img *= np.float32(self.contrast)
        return img[..., list(self.order)]


class PhotoMetricDistortion(T.Augmentation):
    """Change brightness, contrast, saturation, hue and the channels' order, each half of the time.

    Contrast comes before or after saturation and hue, equally likely.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: float = 18.0,
    ) -> None:
        """Check and keep the options.

        Args:
            brightness: greatest change of a value, either way. hue: greatest turn, degrees.
            contrast, saturation: [least, greatest] factor.

        Raises:
            ValueError: a number is negative, or a range is none.
        """
        super().__init__()
        if brightness < 0 or hue < 0:
            raise ValueError(f"brightness and hue must not be negative, got {brightness}, {hue}")
        contrast = checked_range("contrast", contrast, least=0.0)
        saturation = checked_range("saturation", saturation, least=0.0)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        done = np.random.random(5) < 0.5
        return PhotoMetricTransform(
            brightness=done[0] * self._rand_range(-self.brightness, self.brightness),
            contrast=self._rand_range(*self.contrast) if done[1] else 1.0,
            saturation=self._rand_range(*self.saturation) if done[2] else 1.0,
            hue=done[3] * self._rand_range(-self.hue, self.hue),
            contrast_first=bool(np.random.randint(2)),
            order=np.random.permutation(3).tolist() if done[4] else [0, 1, 2],
        )


def _ious(window: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M,) IoU of one window (4,) with boxes (M, 4), all xyxy px."""
    sides = np.minimum(window[2:], boxes[:, 2:]) - np.maximum(window[:2], boxes[:, :2])
    intersection = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return intersection / ((window[2:] - window[:2]).prod() + areas - intersection)
