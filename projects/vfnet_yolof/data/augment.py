"""Applying augmentations to a picture and its boxes, step by step."""

from __future__ import annotations

import numpy as np
from detectron2.data import transforms as T

from .transforms import OpenCVResizeTransform

INTERPOLATIONS = ("pil", "opencv")


def check_interpolation(interpolation: str) -> str:
    """``interpolation`` itself; ValueError unless it is "pil" or "opencv"."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation={interpolation!r}; known are {', '.join(INTERPOLATIONS)}.")
    return interpolation


class AugInput(T.AugInput):
    """A picture, its boxes and where its content lies, while augmentations change them.

    A resize leaves at least one px of each side, also of a picture so thin that its shorter side
    would be rounded to 0. Boxes are clipped to the picture, at first and after every step: what one
    step cuts away cannot come back through the next one, as it would where a cropped picture is
    shifted.

    Attributes:
        image: (H, W, C). boxes: (M, 4) float64 xyxy px.
        content: (4,) float64 xyxy px, the part of ``image`` that shows the original picture and not
            a border which some step has filled.
    """

    image: np.ndarray
    boxes: np.ndarray

    def __init__(
        self, image: np.ndarray, boxes: np.ndarray | None = None, *, interpolation: str = "pil"
    ) -> None:
        """interpolation: how every resize of the augmentations works, Detectron2's or our own:
        "pil", Pillow's antialiased bilinear filter, as in Detectron2, or "opencv", OpenCV's
        bilinear rule, as in MMDetection."""
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
