"""The one reader of annotation files in COCO's detection format.

Training, evaluation and :func:`~.validate.validate_coco` all read through it, so that what one of
them accepts the others do. A box detector needs ids, names, sizes, boxes and flags; whatever else a
file holds, outlines and keypoints among it, is left alone in any form. :mod:`.coco_reader` says how
the values of an entry are read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from .coco_reader import CocoReader, ImageEntry, box_areas
from .faults import Faults, shown

logger = logging.getLogger(f"detectron2.{__name__}")  # below Detectron2's, to share its handlers

MIN_BOX_SIDE = 1e-5  # px; boxes with a side of at most this much are not learnt
_EDGE_TOLERANCE = 1.0  # px; rounding in annotation tools exceeds the border by that much


@dataclass
class Annotations:
    """The usable content of an annotation file with N boxes.

    Attributes:
        json_file: where it comes from.
        categories: {id: name}, sorted by id, which is how Detectron2 numbers classes.
        images: sorted by id, numbers before text.
        image: (N,) int64, position of each box's image in ``images``.
        category: (N,) int64, position of its category in ``categories``.
        boxes: (N, 4) float64 x, y, width, height in pixels, as in the file.
        areas: (N,) float64, the file's, or the box's where the file has none.
        crowds: (N,) bool, regions of many objects, which are neither learnt nor demanded.
        ids: of the annotations, for messages.
        faults: what is wrong; with errors among them the other attributes lack the faulty entries.
    """

    json_file: str
    categories: dict[int, str]
    images: list[ImageEntry]
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray
    ids: list[Any]
    faults: Faults

    @property
    def solid(self) -> np.ndarray:
        """(N,) bool, boxes that can be learnt: no crowds, and no side too short for it."""
        return ~self.crowds & (self.boxes[:, 2:] > MIN_BOX_SIDE).all(axis=1)

    def image_counts(self) -> tuple[int, int]:
        """How many images have a box that can be learnt, and how many have none."""
        full = len(np.unique(self.image[self.solid]))
        return full, len(self.images) - full

    def records(self, image_root: str) -> list[dict[str, Any]]:
        """Detectron2's data set dicts, with ``area`` kept beside each box."""
        records: list[dict[str, Any]] = [
            {
                "file_name": os.path.join(image_root, image.file_name),
                "height": image.height,
                "width": image.width,
                "image_id": image.id,
                "annotations": [],
            }
            for image in self.images
        ]
        for image, category, box, area, crowd in self.rows():
            records[image]["annotations"].append(
                {
                    "bbox": box,
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": category,
                    "iscrowd": int(crowd),
                    "area": area,
                }
            )
        return records

    def rows(self) -> Iterator[tuple[int, int, list[float], float, bool]]:
        """``image``, ``category``, ``boxes``, ``areas`` and ``crowds`` of each box, as numbers."""
        columns = (self.image, self.category, self.boxes, self.areas, self.crowds)
        return zip(*(x.tolist() for x in columns), strict=True)


def load_annotations(json_file: str | os.PathLike[str]) -> Annotations:
    """Read a file for training or evaluation; warnings go to the log.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or has faulty entries; the message names file and entries.
    """
    annotations = read_annotations(json_file)
    annotations.faults.require_no_errors(f"{annotations.json_file} cannot be used")
    for fault in annotations.faults.warnings:
        logger.warning("%s: %s", annotations.json_file, fault)
    return annotations


def read_annotations(json_file: str | os.PathLike[str]) -> Annotations:
    """Read a file whatever its entries are like; see :attr:`Annotations.faults`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object.
    """
    reader = CocoReader(json_file)
    categories, images, boxes = reader.read()
    annotations = Annotations(reader.json_file, categories, images, *boxes, reader.faults)
    _check_boxes(annotations)
    _check_areas(annotations)
    return annotations


def read_categories(json_file: str | os.PathLike[str]) -> dict[int, str]:
    """{category id: name} of a file, sorted by id as Detectron2 numbers them.

    Raises:
        FileNotFoundError, ValueError: as of :func:`load_annotations`, for the categories alone.
    """
    reader = CocoReader(json_file)
    categories = reader.categories()
    reader.faults.require_no_errors(f"{reader.json_file} is no usable COCO detection file")
    return categories


def _check_boxes(annotations: Annotations) -> None:
    """Where boxes lie, and of which classes and images they are."""
    faults, boxes = annotations.faults, annotations.boxes
    named = _namer(annotations)
    sizes = np.array([(i.width, i.height) for i in annotations.images], np.float64).reshape(-1, 2)
    limits = sizes[annotations.image] if len(sizes) else np.empty((0, 2))
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(box_areas(boxes))
    corner, side = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore"):  # NaN compares as False, which is what is wanted
        negative = finite & (side < 0).any(axis=1)
        zero = finite & ~negative & (side <= MIN_BOX_SIDE).any(axis=1)
        usable = finite & ~negative & ~zero
        outside = usable & ((corner >= limits) | (corner + side <= 0)).any(axis=1)
        over = (corner < -_EDGE_TOLERANCE) | (corner + side > limits + _EDGE_TOLERANCE)
        partly = usable & ~outside & over.any(axis=1)
    faults.error("box with NaN or infinity", named(~finite))
    faults.error("box of negative width or height", named(negative))
    faults.error("box entirely outside its image", named(outside))
    faults.warn("box of zero width or height (left out in training)", named(zero))
    faults.warn("box partly outside its image (clipped in training)", named(partly))
    if partly.sum() + outside.sum() > 0.2 * len(boxes) and len(boxes) >= 5:
        faults.warn("box format", ["many boxes leave their image: are they [x1, y1, x2, y2]?"])
    if usable.any() and (side[usable] <= 1).all() and (limits[usable] > 4).all():
        faults.warn(
            "all boxes are at most 1 px wide and high: are they shares of the image, not pixels?",
            named(usable),
        )
    counts = np.bincount(
        annotations.category[~annotations.crowds], minlength=len(annotations.categories)
    )
    if len(boxes):
        names = annotations.categories.values()
        faults.warn("class without boxes", [n for n, c in zip(names, counts, strict=True) if not c])


def _check_areas(annotations: Annotations) -> None:
    """Areas decide what counts as small, medium and large in evaluation."""
    boxes, areas = annotations.boxes, annotations.areas
    named = _namer(annotations, areas)
    own = box_areas(boxes)
    if not np.isfinite(own).all() or (boxes[:, 2:] < 0).any():
        return
    # Outlines may be counted in whole pixels, also those that they only touch.
    most = (boxes[:, 2] + 1) * (boxes[:, 3] + 1) + 1
    which = "APs, APm and APl will be those of other objects than they say"
    annotations.faults.warn(f"'area' larger than the box ({which})", named(areas > most))
    zero = (areas == 0) & (own > 1)
    annotations.faults.warn(f"'area' of 0 ({which})", named(zero))
    equal = len(areas) >= 5 and areas[0] > 0 and (areas == areas[0]).all() and own.std() > 1
    if equal:
        annotations.faults.warn(f"all 'area' fields are equal ({which})", named(areas == areas[0]))


def _namer(
    annotations: Annotations, areas: np.ndarray | None = None
) -> Callable[[np.ndarray], list[str]]:
    def named(mask: np.ndarray) -> list[str]:
        return [
            f"annotation {shown(annotations.ids[i])} of image "
            f"{annotations.images[annotations.image[i]].id} "
            f"{[_short(x) for x in annotations.boxes[i].tolist()]}"
            + ("" if areas is None else f" area {_short(areas[i].item())}")
            for i in np.flatnonzero(mask).tolist()
        ]

    return named


def _short(value: float) -> float | int:
    return int(value) if value == value and abs(value) < 2**53 and value.is_integer() else value
