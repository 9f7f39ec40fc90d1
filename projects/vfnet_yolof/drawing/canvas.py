"""A surface to draw on: boxes, points, curves, and labels that find a free place of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..utils.files import replacing
from .fonts import fonts_for, sized

Color = tuple[int, int, int]

# R, G, B of Okabe and Ito: eight colours, black among them, that people with any kind of colour
# blindness can tell apart.
_PALETTE: tuple[Color, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
)
_DISPLAY_SIDE, _DISPLAY_LIMIT = 480, 1920  # px: the shorter side reaches one, the longer not both
_PADDING = 2  # px between a label's text and the end of its strip
# What a place for a label costs: what it hides of other labels (as a share of itself), of boxes
# (as shares of them), and that it is not the first of the places which people expect.
_ON_A_LABEL, _ON_A_BOX, _NOT_THE_FIRST = 4.0, 1.0, 0.02


def class_color(index: int) -> Color:
    """(R, G, B) of class ``index``: always the same; the first seven suit the colour-blind.

    Later classes have lighter and darker shades of these seven.
    """
    color = np.array(_PALETTE[index % len(_PALETTE)], dtype=float)
    # Steps of the golden ratio never come back to the same shade; the first one is the plain one.
    shade = (0.5 + index // len(_PALETTE) * 0.618033988749895) % 1.0 - 0.5
    mixed = color + shade * (255 - color) if shade > 0 else color * (1 + 0.7 * shade)
    red, green, blue = np.rint(mixed).astype(int).tolist()
    return red, green, blue


def display_scale(height: int, width: int) -> int:
    """The whole number by which to enlarge an image, so that labels fit beside small objects.

    The shorter side becomes 480 px or more, unless the longer one would exceed 1,920 px then.
    """
    shorter, longer = sorted((height, width))
    return max(1, min(-(-_DISPLAY_SIDE // shorter), _DISPLAY_LIMIT // longer))


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write ``image`` whole or not at all, in the format of the name's suffix.

    JPEG and WebP get quality 95, JPEG with its colours at full resolution: thin lines and small
    letters suffer from less.

    Raises:
        ValueError: a suffix of no format. FileWriteError: see :mod:`vfnet_yolof.utils.files`.
    """
    path = Path(path)
    image_format = Image.registered_extensions().get(path.suffix.lower())
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"quality": 95},
    }
    with replacing(path) as temporary:
        image.save(temporary, **options.get(image_format or "", {}))


class Canvas:
    """An enlarged copy of an image; all coordinates are pixels of the image that was given."""

    def __init__(self, image: np.ndarray, line_width: int | None = None, scale: int = 1) -> None:
        """Raises ValueError unless ``image`` is (H, W, 3) uint8 and ``scale`` 1 or more.

        Args:
            line_width: px of the result; by default it grows with it. scale: of enlargement.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image must be (H, W, 3) uint8, got {image.dtype} of shape {image.shape}"
            )
        if scale < 1:
            raise ValueError(f"scale must be at least 1, got {scale}")
        height, width = image.shape[:2]
        source = Image.fromarray(np.ascontiguousarray(image))
        size = (scale * width, scale * height)
        self.image = source.copy() if scale == 1 else source.resize(size, Image.Resampling.BICUBIC)
        self.scale, side = scale, (size[0] * size[1]) ** 0.5
        self.draw = ImageDraw.Draw(self.image)
        self.width = line_width if line_width is not None else max(1, round(side / 300))
        self.font_size = max(10, round(side / 48))

    def box(self, box: Sequence[float], color: Color) -> None:
        x0, y0, x1, y1 = (self.scale * value for value in box)
        self.draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=color, width=self.width)

    def point(self, x: float, y: float, color: Color) -> None:
        x, y, radius = self.scale * x, self.scale * y, self.width + 0.5
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), color, (0, 0, 0))

    def curve(self, points: Sequence[tuple[float, float]], color: Color) -> None:
        """A polygon that lets the image shine through, with a solid line around it."""
        points = [(self.scale * x, self.scale * y) for x, y in points]
        ImageDraw.Draw(self.image, "RGBA").polygon(points, fill=(*color, 120))
        self.draw.line([*points, points[0]], fill=color, width=self.width)

    def labels(
        self,
        boxes: np.ndarray,
        classes: Sequence[int],
        class_names: Sequence[str],
        colors: Sequence[Color],
        suffixes: Sequence[str] | None = None,
    ) -> None:
        """A filled strip with a name for each box, where it hides least; always in the image.

        The first ones choose their places first and lie on top. To be called after all else is
        drawn, so that no line crosses a label.

        Args:
            boxes: (N, 4) xyxy, in pixels of the image that was given.
            classes: N indices into ``class_names``.
            suffixes: what stands behind the names.

        Raises:
            IndexError: a class has no name.
        """
        texts = [class_names[index] for index in classes]
        if not texts:
            return
        if suffixes is not None:
            texts = [text + suffix for text, suffix in zip(texts, suffixes, strict=True)]
        boxes = self._visible(boxes)
        files = fonts_for(tuple(class_names))
        fonts = [
            self._font(files[index], text, width)
            for index, text, width in zip(
                classes, texts, (boxes[:, 2] - boxes[:, 0]).tolist(), strict=True
            )
        ]
        sizes = [
            (font.getlength(text) + 2 * _PADDING, sum(font.getmetrics()) + _PADDING)
            for font, text in zip(fonts, texts, strict=True)
        ]
        strips = place_labels(boxes, np.ceil(np.array(sizes)), self.image.size)
        rows = list(zip(strips.tolist(), texts, fonts, colors, strict=True))
        for (x0, y0, x1, y1), text, font, color in reversed(rows):
            self.draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=color)
            luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
            ink = (0, 0, 0) if luminance > 140 else (255, 255, 255)
            self.draw.text((x0 + _PADDING, y0 + _PADDING // 2), text, ink, font)

    def array(self) -> np.ndarray:
        return np.array(self.image)

    def _visible(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) px of the result, cut off at its ends; no side is negative."""
        limit = np.array([*self.image.size, *self.image.size], dtype=float)
        boxes = np.clip(self.scale * boxes.astype(float), 0, limit)
        return np.concatenate([boxes[:, :2], np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)

    def _font(self, file: Path, text: str, width: float) -> ImageFont.FreeTypeFont:
        """Smaller, down to three quarters, where the text is wider than its box."""
        font = sized(file, self.font_size)
        share = (width - 2 * _PADDING) / max(font.getlength(text), 1.0)
        if share >= 1:
            return font
        return sized(file, max(9, round(max(share, 0.75) * self.font_size)))


def place_labels(boxes: np.ndarray, sizes: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """A place for each label, in order: free ones beside its box first, then what hides least.

    Args:
        boxes: (N, 4) xyxy, px, inside of the image. sizes: (N, 2) width and height of the labels.
        limits: (width, height) of the image.

    Returns:
        (N, 4) xyxy of the labels. Each touches its box, and lies in the image if it fits there.
    """
    (x0, y0, x1, y1), (w, h) = boxes.T, sizes.T
    lefts = np.stack([x0, x1 - w, x0, x1 - w, x1, x0 - w, x0, x1 - w], axis=1)
    tops = np.stack([y0 - h, y0 - h, y1, y1, y0, y0, y0, y1 - h], axis=1)
    lefts = np.clip(lefts, 0, np.maximum(limits[0] - w, 0)[:, None])
    tops = np.clip(tops, 0, np.maximum(limits[1] - h, 0)[:, None])
    places = np.stack([lefts, tops, lefts + w[:, None], tops + h[:, None]], axis=2).round()
    areas = np.maximum((x1 - x0) * (y1 - y0), 1.0)
    handicap = _NOT_THE_FIRST * np.arange(places.shape[1])
    chosen = np.empty((len(boxes), 4))
    for row, candidates in enumerate(places):
        on_labels = _overlaps(candidates, chosen[:row]).sum(1) / (w[row] * h[row])
        on_boxes = (_overlaps(candidates, boxes) / areas).sum(1)
        cost = _ON_A_LABEL * on_labels + _ON_A_BOX * on_boxes + handicap
        chosen[row] = candidates[cost.argmin()]
    return chosen


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(A, B) areas in px² that boxes (A, 4) and (B, 4) have in common."""
    corner = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (corner - np.maximum(first[:, None, :2], second[None, :, :2])).clip(min=0)
    area: np.ndarray = sides[..., 0] * sides[..., 1]
    return area
