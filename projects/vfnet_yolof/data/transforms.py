"""Deterministic changes of an image and its boxes; :mod:`.augmentations` draws their numbers.

:class:`AugInput` applies them step by step.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform
from PIL import Image

Color = int | Sequence[int]

INTERPOLATIONS = ("pil", "opencv")


class WindowTransform(Transform):
    """What a window of ``width`` x ``height`` px shows, its top left corner at (``left``, ``top``).

    The window may reach beyond the image: what lies there has the colour ``fill`` (one number, or
    one for each channel). Crops, shifts and padding are windows.
    """

    def __init__(self, left: int, top: int, width: int, height: int, fill: Color = 0) -> None:
        super().__init__()
        if width < 1 or height < 1:
            raise ValueError(f"a window of {width} x {height} px shows nothing")
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, C) or (H, W) -> (height, width, C) or (height, width), same dtype."""
        shown = np.empty((self.height, self.width, *img.shape[2:]), dtype=img.dtype)
        shown[...] = self.fill
        x0, x1 = max(0, self.left), min(img.shape[1], self.left + self.width)
        y0, y1 = max(0, self.top), min(img.shape[0], self.top + self.height)
        if x0 < x1 and y0 < y1:
            target = np.s_[y0 - self.top : y1 - self.top, x0 - self.left : x1 - self.left]
            shown[target] = img[y0:y1, x0:x1]
        return shown

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(N, 2) xy px in the image -> the same in the window; not clipped."""
        return coords - np.array([self.left, self.top])


class PixelTransform(Transform):
    """Changes colours only: coordinates stay as they are."""

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation


class FillTransform(PixelTransform):
    """Paint rectangles, (R, 4) int xyxy px, in one colour; boxes stay as they are."""

    def __init__(self, rectangles: np.ndarray, fill: Color = 0) -> None:
        super().__init__()
        self.rectangles = np.asarray(rectangles, dtype=np.int64).reshape(-1, 4)
        self.fill = fill

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, C) or (H, W), returned as a copy."""
        img = img.copy()
        for x0, y0, x1, y1 in self.rectangles.clip(0).tolist():
            img[y0:y1, x0:x1] = self.fill
        return img


class DistortTransform(PixelTransform):
    """Turn the hue and scale saturation and exposure (the V of HSV); boxes stay as they are.

    Args:
        hue: share of the colour circle by which hues turn, in [-1, 1].
        saturation, exposure: factors; what leaves [0, 255] is clipped.

    Images are taken as R, G, B. For B, G, R the hue turns the other way, everything else is the
    same.
    """

    def __init__(self, hue: float, saturation: float, exposure: float) -> None:
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> the same.

        Raises:
            ValueError: another kind of image.
        """
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(f"(H, W, 3) uint8 expected, got {img.dtype} of shape {img.shape}")
        steps = np.arange(256)
        # OpenCV keeps the hue of a uint8 image in half degrees, 0 to 179.
        tables = (
            (steps + round(180 * self.hue)) % 180,
            (steps * self.saturation).clip(0, 255),
            (steps * self.exposure).clip(0, 255),
        )
        table = np.stack(tables, axis=-1)[None].astype(np.uint8)
        hsv = cv2.cvtColor(np.ascontiguousarray(img), cv2.COLOR_RGB2HSV)
        return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)


class OpenCVResizeTransform(T.ResizeTransform):
    """Resize with OpenCV's bilinear rule, which looks at the four nearest pixels only.

    MMDetection resizes so. Detectron2's ``ResizeTransform`` averages over all pixels that a new one
    covers, which differs where images shrink.
    """

    @classmethod
    def like(cls, resize: T.ResizeTransform) -> OpenCVResizeTransform:
        """The same change of size.

        Raises:
            ValueError: ``resize`` is not bilinear.
        """
        if resize.interp != Image.Resampling.BILINEAR:
            raise ValueError(
                f"interpolation 'opencv' is bilinear, but a resize asks for Pillow's filter "
                f"{resize.interp!r}; leave interp out of it, or take interpolation 'pil'."
            )
        return cls(resize.h, resize.w, resize.new_h, resize.new_w, resize.interp)

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """(H, W, C) or (H, W) -> (new_h, new_w, C) or (new_h, new_w), same dtype."""
        if img.shape[:2] != (self.h, self.w):
            raise ValueError(f"an image of {img.shape[:2]} px came, not {(self.h, self.w)}")
        nearest = interp == Image.Resampling.NEAREST
        resized = cv2.resize(
            np.ascontiguousarray(img),
            (self.new_w, self.new_h),
            interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR,
        )
        return resized.reshape(self.new_h, self.new_w, *img.shape[2:])

    def inverse(self) -> OpenCVResizeTransform:
        return type(self)(self.new_h, self.new_w, self.h, self.w, self.interp)


def check_interpolation(interpolation: str) -> str:
    """``interpolation`` itself; ValueError unless it is "pil" or "opencv"."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation={interpolation!r}; known are {', '.join(INTERPOLATIONS)}.")
    return interpolation


class AugInput(T.AugInput):
    """An image, its boxes and where its content lies, while augmentations change them.

    A resize leaves at least one px of each side, also of an image so thin that its shorter side
    would be rounded to 0. Boxes are clipped to the image, at first and after every step: what one
    step cuts away cannot come back through the next one, as it would where a cropped image is
    shifted.

    Attributes:
        image: (H, W, C). boxes: (M, 4) float64 xyxy px.
        content: (4,) float64 xyxy px, the part of ``image`` that shows the original image and not
            a border which some step has filled.
    """

    image: np.ndarray
    boxes: np.ndarray

    def __init__(
        self, image: np.ndarray, boxes: np.ndarray | None = None, *, interpolation: str = "pil"
    ) -> None:
        """Check and keep the options.

        Args:
            image: (H, W, C).
            boxes: (M, 4) xyxy px, or None for no boxes.
            interpolation: how every resize of the augmentations works, Detectron2's or our own:
                "pil", Pillow's antialiased bilinear filter, as in Detectron2, or "opencv",
                OpenCV's bilinear rule, as in MMDetection.
        """
        boxes = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, dtype=np.float64)
        self.content = np.array([0.0, 0.0, image.shape[1], image.shape[0]])
        super().__init__(image, boxes=boxes.reshape(-1, 4).clip(0, np.tile(self.content[2:], 2)))
        self.interpolation = check_interpolation(interpolation)

    def transform(self, tfm: T.Transform) -> None:
        """Apply one step to everything, in place."""
        if isinstance(tfm, T.TransformList):
            for step in tfm.transforms:
                self.transform(step)
            return
        if isinstance(tfm, T.ResizeTransform):
            tfm = _with_pixels(tfm)
        if self.interpolation == "opencv" and type(tfm) is T.ResizeTransform:
            tfm = OpenCVResizeTransform.like(tfm)
        self.image = tfm.apply_image(self.image)
        height, width = self.image.shape[:2]
        changed = tfm.apply_box(np.concatenate([self.boxes, self.content[None]]))
        changed = changed.clip(0, [width, height, width, height])
        self.boxes, self.content = changed[:-1], changed[-1]


def _with_pixels(resize: T.ResizeTransform) -> T.ResizeTransform:
    """``resize``, or one to at least 1 px where a side would be rounded to 0."""
    if min(resize.new_h, resize.new_w) >= 1:
        return resize
    size = max(1, resize.new_h), max(1, resize.new_w)
    return type(resize)(resize.h, resize.w, *size, resize.interp)
