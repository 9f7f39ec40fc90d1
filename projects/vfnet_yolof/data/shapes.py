"""The built-in ``shapes_train`` / ``shapes_val`` data set: drawn on first use, nothing to download.

Six classes that only their outline tells apart (every fill colour, texture, size and rotation is
drawn independently of the class), with overlap, truncation at the border and clutter that belongs
to no class. Image ``i`` of a split depends on ``(seed, split, i)`` alone, and it is rasterised with
plain numpy arithmetic, so the pixels do not depend on the version of a drawing library.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from iopath.common.file_io import file_lock
from PIL import Image

logger = logging.getLogger(f"detectron2.{__name__}")

GENERATOR_VERSION = 2  # part of the folder's name: raise it with every change of what is drawn
NUM_IMAGES = {"train": 400, "val": 100}
SHAPES = ("shapes_train", "shapes_val")  # the registered data sets
IMAGE_SIDE = (144, 176)  # px, inclusive range of width and of height
BOX_SIDE = (8.0, 120.0)  # px, inclusive range of both sides of every annotated box
OBJECTS_PER_IMAGE = (3, 8)
MIN_VISIBLE = 0.5  # of the shape's pixels, and of its box

_SUBPIXELS = 4  # samples per pixel side; box corners are therefore multiples of 1/4 px
_ATTEMPTS = 30  # tries to place one object before it is left out
_SPLIT_KEYS = {"train": 0, "val": 1}

Window = tuple[slice, slice]  # rows and columns of an image
_WHOLE: Window = (slice(None), slice(None))
Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _half_planes(u: np.ndarray, v: np.ndarray, count: int, distance: float) -> np.ndarray:
    """How many of `count` evenly turned half planes, `distance` from the origin, a point leaves."""
    angles = np.pi / 2 + 2 * np.pi * np.arange(count) / count
    return sum((np.cos(a) * u + np.sin(a) * v > distance).astype(np.int64) for a in angles.tolist())


def _box(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) <= 1.0


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    au, av = np.abs(u), np.abs(v)
    return (np.minimum(au, av) <= 0.3) & (np.maximum(au, av) <= 0.95)


_CLASSES: dict[str, Inside] = {
    "disc": lambda u, v: u * u + v * v <= 1.0,
    "ring": lambda u, v: (u * u + v * v <= 1.0) & (u * u + v * v >= 0.3),
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) <= 0.8,
    "triangle": lambda u, v: _half_planes(u, v, 3, 0.5) == 0,
    # a pentagram is what leaves at most one of the five half planes that its edges lie on
    "star": lambda u, v: _half_planes(u, v, 5, 0.309) <= 1,
    "cross": _cross,
}
CLASS_NAMES = tuple(_CLASSES)

_DISTRACTORS: dict[str, Inside] = {
    "bar": lambda u, v: (np.abs(u) <= 1.0) & (np.abs(v) <= 0.14),
    "crescent": lambda u, v: (u * u + v * v <= 1.0) & ((u - 0.55) ** 2 + v * v >= 0.75),
    "arc": lambda u, v: (u * u + v * v <= 1.0) & (u * u + v * v >= 0.45) & (u >= 0.2),
    "wave": lambda u, v: (np.abs(v - 0.35 * np.sin(4 * u)) <= 0.15) & (np.abs(u) <= 1.0),
}


@dataclass
class _Stamp:
    """A rasterised shape on the image's pixel grid."""

    alpha: np.ndarray  # (H, W) float32, share of each pixel that the shape covers
    box: tuple[float, float, float, float]  # tight xyxy of the shape, clipped to the image, px
    full_area: float  # px, including what the border cuts off


@dataclass
class ShapeObject:
    """One annotated object of a drawn image."""

    class_id: int
    box: tuple[float, float, float, float]  # xyxy, px
    visible_fraction: float  # of the whole shape, after border and occlusion


def _rasterise(
    inside: Inside, center: np.ndarray, radii: np.ndarray, angle: float, size: tuple[int, int]
) -> _Stamp | None:
    """Stamp of a shape; None where nothing of it lies in the image.

    Args:
        inside: tells which points of the shape's own frame are in it.
        center: (2,) xy px.
        radii: (2,) px along the shape's own axes.
        angle: radians.
        size: (H, W) px of the image.
    """
    height, width = size
    reach = float(np.hypot(*radii)) + 1.0
    first = np.floor(center - reach).astype(int)
    count = int(np.ceil(2 * reach)) + 1
    sub = (np.arange(count * _SUBPIXELS) + 0.5) / _SUBPIXELS
    dx = (first[0] + sub - center[0])[None, :]
    dy = (first[1] + sub - center[1])[:, None]
    cos, sin = np.cos(angle), np.sin(angle)
    mask = inside((cos * dx + sin * dy) / radii[0], (cos * dy - sin * dx) / radii[1])

    cover = mask.reshape(count, _SUBPIXELS, count, _SUBPIXELS).mean(axis=(1, 3), dtype=np.float32)
    alpha = np.zeros(size, dtype=np.float32)
    x0, y0 = np.maximum(first, 0)
    x1, y1 = min(first[0] + count, width), min(first[1] + count, height)
    if x1 <= x0 or y1 <= y0 or not mask.any():
        return None
    alpha[y0:y1, x0:x1] = cover[y0 - first[1] : y1 - first[1], x0 - first[0] : x1 - first[0]]

    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    box = (
        float(max(first[0] + xs[0] / _SUBPIXELS, 0.0)),
        float(max(first[1] + ys[0] / _SUBPIXELS, 0.0)),
        float(min(first[0] + (xs[-1] + 1) / _SUBPIXELS, width)),
        float(min(first[1] + (ys[-1] + 1) / _SUBPIXELS, height)),
    )
    return _Stamp(alpha, box, float(cover.sum()))


def _smooth(grid: np.ndarray, size: tuple[int, int], window: Window = _WHOLE) -> np.ndarray:
    """(g, g, C) values -> (H, W, C), bilinear; of that the window only."""
    height, width = size
    ys = np.linspace(0, grid.shape[0] - 1.001, height)[window[0]]
    xs = np.linspace(0, grid.shape[1] - 1.001, width)[window[1]]
    y0, x0 = ys.astype(int), xs.astype(int)
    fy, fx = (ys - y0)[:, None, None], (xs - x0)[None, :, None]
    top = grid[y0][:, x0] * (1 - fx) + grid[y0][:, x0 + 1] * fx
    bottom = grid[y0 + 1][:, x0] * (1 - fx) + grid[y0 + 1][:, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy


def _stripes(
    rng: np.random.Generator, size: tuple[int, int], window: Window = _WHOLE
) -> np.ndarray:
    """(H, W, 1) waves between 0 and 1, of random direction and period; of that the window only."""
    ys, xs = np.arange(size[0])[window[0]], np.arange(size[1])[window[1]]
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 14)
    along = np.cos(angle) * xs[None] + np.sin(angle) * ys[:, None]
    return (0.5 + 0.5 * np.sin(2 * np.pi * along / period))[..., None]


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float: a colour gradient, soft stains and, on a third of the images, stripes."""
    image = _smooth(rng.uniform(20, 235, (2, 2, 3)), size)
    image = image + _smooth(rng.uniform(-25, 25, (6, 6, 3)), size)
    if rng.random() < 0.35:
        image = image + rng.uniform(10, 30) * (_stripes(rng, size) - 0.5)
    return image


def _paint(rng: np.random.Generator, canvas: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`canvas` with `alpha` filled in, in a colour that can be told from what is below."""
    size, window = canvas.shape[:2], _window(alpha)
    weight, covered = alpha[window][..., None], canvas[window]
    below = (covered * weight).sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)
    color = rng.uniform(0, 255, 3)
    for _ in range(20):
        if np.abs(color - below).max() >= 70:
            break
        color = rng.uniform(0, 255, 3)
    fill = np.broadcast_to(color, covered.shape)
    style = rng.integers(0, 4)
    if style == 1:
        fill = fill + _smooth(rng.uniform(-40, 40, (2, 2, 3)), size, window)
    elif style == 2:
        fill = fill + rng.uniform(-60, 60, 3) * _stripes(rng, size, window)
    elif style == 3:
        fill = fill + rng.integers(-25, 26, canvas.shape)[window]
    painted = canvas.copy()
    painted[window] = covered * (1 - weight) + fill * weight
    return painted


def _window(alpha: np.ndarray) -> Window:
    """The rows and columns outside of which nothing is covered."""
    ys, xs = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if len(ys) == 0:  # all of it lies beyond the border
        return slice(0, 0), slice(0, 0)
    return slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)


def _line(rng: np.random.Generator, size: tuple[int, int], half_width: float) -> _Stamp | None:
    center = rng.uniform(0.1, 0.9, 2) * np.array(size[::-1])
    radii = np.array([rng.uniform(20, 90), half_width])
    return _rasterise(_box, center, radii, float(rng.uniform(0, np.pi)), size)


def _add_clutter(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Lines and shapes of no class, below all objects."""
    size = canvas.shape[:2]
    for _ in range(int(rng.integers(1, 5))):
        stamp = _line(rng, size, float(rng.uniform(0.5, 1.5)))
        if stamp is not None:
            canvas = _paint(rng, canvas, stamp.alpha)
    names = sorted(_DISTRACTORS)
    for _ in range(int(rng.integers(1, 4))):
        inside = _DISTRACTORS[names[int(rng.integers(len(names)))]]
        center = rng.uniform(0, 1, 2) * np.array(size[::-1])
        radii = rng.uniform(8, 28) * rng.uniform(0.85, 1.15, 2)
        stamp = _rasterise(inside, center, radii, float(rng.uniform(0, 2 * np.pi)), size)
        if stamp is not None:
            canvas = _paint(rng, canvas, stamp.alpha)
    return canvas


class _Scene:
    """Objects placed so far, later ones on top, and what is still to be seen of each."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.stamps: list[_Stamp] = []
        self.class_ids: list[int] = []
        self._seen = np.zeros((0, *size), dtype=np.float32)  # visible share of every pixel
        self._open = np.zeros((0, *size), dtype=bool)  # box pixels below no later box

    def _box_mask(self, box: tuple[float, float, float, float]) -> np.ndarray:
        ys, xs = np.arange(self.size[0]) + 0.5, np.arange(self.size[1]) + 0.5
        return ((ys > box[1]) & (ys < box[3]))[:, None] & ((xs > box[0]) & (xs < box[2]))[None]

    def visible_fractions(self) -> np.ndarray:
        """(n,) share of each shape's full area that is in the image and below nothing."""
        full = np.array([s.full_area for s in self.stamps], dtype=np.float64)
        return self._seen.sum(axis=(1, 2), dtype=np.float64) / np.maximum(full, 1e-9)

    def try_cover(self, stamp: _Stamp, class_id: int | None) -> bool:
        """Lay `stamp` on top, unless too little of an object would be left. None: clutter."""
        seen = self._seen * (1 - stamp.alpha)
        opened, stamps, class_ids = self._open, self.stamps, self.class_ids
        if class_id is not None:
            box = self._box_mask(stamp.box)
            opened = np.concatenate([opened & ~box, box[None]])
            seen = np.concatenate([seen, stamp.alpha[None]])
            stamps, class_ids = [*stamps, stamp], [*class_ids, class_id]
        if not stamps:
            return True
        full = np.array([s.full_area for s in stamps])
        boxes = np.array([self._box_mask(s.box).sum() for s in stamps])
        hidden = seen.sum(axis=(1, 2)) < MIN_VISIBLE * full
        if hidden.any() or (opened.sum(axis=(1, 2)) < MIN_VISIBLE * boxes).any():
            return False
        self._seen, self._open, self.stamps, self.class_ids = seen, opened, stamps, class_ids
        return True


def _random_object(rng: np.random.Generator, size: tuple[int, int]) -> tuple[_Stamp | None, int]:
    """One shape of random class, size, rotation and place; None where its box has no legal size."""
    class_id = int(rng.integers(len(CLASS_NAMES)))
    band = ((5.0, 11.0), (11.0, 30.0), (30.0, 58.0))[int(rng.choice(3, p=[0.15, 0.7, 0.15]))]
    radius = float(np.exp(rng.uniform(*np.log(band))))
    radii = radius * rng.uniform(0.85, 1.15, 2)
    extent = np.array(size[::-1], dtype=np.float64)
    center = rng.uniform(0.6 * radius, extent - 0.6 * radius)
    angle = float(rng.uniform(0, 2 * np.pi))
    stamp = _rasterise(_CLASSES[CLASS_NAMES[class_id]], center, radii, angle, size)
    if stamp is None:
        return None, class_id
    sides = (stamp.box[2] - stamp.box[0], stamp.box[3] - stamp.box[1])
    legal = min(sides) >= BOX_SIDE[0] and max(sides) <= BOX_SIDE[1]
    return (stamp if legal else None), class_id


def draw_picture(rng: np.random.Generator) -> tuple[np.ndarray, list[ShapeObject]]:
    """Draw one image. Returns the (H, W, 3) uint8 RGB image and its objects, lowest first."""
    height, width = (int(x) for x in rng.integers(IMAGE_SIDE[0], IMAGE_SIDE[1] + 1, 2))
    canvas = _add_clutter(rng, _background(rng, (height, width)))
    scene = _Scene((height, width))
    for _ in range(int(rng.integers(OBJECTS_PER_IMAGE[0], OBJECTS_PER_IMAGE[1] + 1))):
        for _ in range(_ATTEMPTS):
            stamp, class_id = _random_object(rng, (height, width))
            if stamp is not None and scene.try_cover(stamp, class_id):
                canvas = _paint(rng, canvas, stamp.alpha)
                break
    if rng.random() < 0.4:  # a wire in front of everything
        wire = _line(rng, (height, width), 0.6)
        if wire is not None and scene.try_cover(wire, None):
            canvas = _paint(rng, canvas, wire.alpha)
    strength = int(rng.integers(2, 10))
    canvas = canvas + rng.integers(-strength, strength + 1, canvas.shape)
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    objects = [
        ShapeObject(c, s.box, float(f))
        for c, s, f in zip(scene.class_ids, scene.stamps, scene.visible_fractions(), strict=True)
    ]
    return image, objects


def _write_split(folder: Path, split: str, count: int, seed: int) -> None:
    (folder / split).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng((seed, _SPLIT_KEYS[split], index))
        pixels, objects = draw_picture(rng)
        name = f"{index:06d}.png"
        Image.fromarray(pixels).save(folder / split / name)
        height, width = pixels.shape[:2]
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        for obj in objects:
            x0, y0, x1, y1 = obj.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": obj.class_id + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],  # some tools want one
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "visible_fraction": round(obj.visible_fraction, 4),
                }
            )
    content = {
        "info": {"description": f"shapes, {split}", "version": str(GENERATOR_VERSION)},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)],
    }
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def _rename_into_place(scratch: Path, folder: Path) -> None:
    try:
        os.replace(scratch, folder)
    except OSError:
        # Where locks do not work (some network file systems) another process may have been first,
        # and what it wrote is the same.
        if not folder.is_dir():
            raise


def generate_shapes(
    folder: str | os.PathLike[str],
    *,
    num_train: int = NUM_IMAGES["train"],
    num_val: int = NUM_IMAGES["val"],
    seed: int = 0,
) -> Path:
    """Draw the data set into `folder` unless it is there already; returns `folder`.

    The folder appears complete or not at all (drawn beside it, then renamed), and processes that
    ask at the same time wait for the first one. Layout: ``train/*.png``, ``val/*.png``,
    ``annotations/instances_{train,val}.json``.
    """
    folder = Path(folder)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(folder)):
        if folder.is_dir():
            return folder
        logger.info("Drawing %d + %d images of shapes into %s", num_train, num_val, folder)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            scratch.chmod(0o755)
            _write_split(scratch, "train", num_train, seed)
            _write_split(scratch, "val", num_val, seed)
            _rename_into_place(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def default_folder() -> Path:
    """Where the registered data set lives: below ``DETECTRON2_DATASETS``, else ``./datasets``."""
    root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    return Path(root) / "shapes" / f"v{GENERATOR_VERSION}"
