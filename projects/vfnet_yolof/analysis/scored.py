"""Ground truth and detections of a data set as arrays, of which the report's figures are made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog

from ..data.annotations import load_annotations
from ..data.datasets import dataset_annotations, dataset_records, dataset_title
from ..data.faults import shown
from ..evaluation.coco_ap import DetectionArrays
from ..evaluation.ground_truth import GroundTruth, load_ground_truth
from ..evaluation.results_file import read_results


@dataclass(frozen=True)
class Truth:
    """Annotated boxes of N images and K classes; G boxes, in the order of the file.

    Attributes:
        name: the annotation file or data set, as messages call it.
        image_ids: N, in pycocotools' order. category_ids, class_names: K.
        files: N image files, for drawing; None where they are not known.
        images: (G,) int64, position of the image. classes: (G,) int64.
        boxes: (G, 4) float64 x, y, width, height in pixels.
        areas: (G,) float64, px^2. crowds: (G,) bool.
        json_file: the annotations in COCO's format, where the data set is such a file.
    """

    name: str
    image_ids: list[Any]
    category_ids: list[Any]
    class_names: list[str]
    files: list[str] | None
    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray
    json_file: str | None = None

    @cached_property
    def positives(self) -> np.ndarray:
        """(K,) int64, the boxes of each class that are to be found: all but crowds."""
        return np.bincount(self.classes[~self.crowds], minlength=len(self.class_names))

    def as_dicts(self) -> list[dict[str, Any]]:
        """The boxes as :func:`.coco_curves` takes them."""
        columns = (self.images, self.classes, self.boxes, self.areas, self.crowds)
        keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [dict(zip(keys, row, strict=True)) for row in rows]


def truth_of_file(
    annotations: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
) -> Truth:
    """Ground truth of a file in COCO's format; ``images`` is the folder of its images.

    Raises:
        FileNotFoundError, ValueError: there is no such file or folder, the file cannot be read or
            has no boxes; the message names it.
    """
    if images is not None and not Path(images).is_dir():
        raise FileNotFoundError(f"There is no folder {os.fspath(images)} of images.")
    content = load_annotations(annotations)
    files = None
    if images is not None:
        files = [os.path.join(images, image.file_name) for image in content.images]
    return _checked(
        Truth(
            os.fspath(annotations),
            [image.id for image in content.images],
            list(content.categories),
            list(content.categories.values()),
            files,
            content.image,
            content.category,
            content.boxes,
            content.areas,
            content.crowds,
            os.fspath(annotations),
        )
    )


def truth_of_dataset(name: str) -> Truth:
    """Ground truth of a registered data set; errors as of :func:`.load_ground_truth`."""
    truth = load_ground_truth(name)
    files = _files(name, truth.image_ids)
    json_file = MetadataCatalog.get(name).get("json_file")
    return _checked(replace(truth_of_rows(dataset_title(name), truth, files), json_file=json_file))


def truth_of_rows(name: str, truth: GroundTruth, files: list[str] | None = None) -> Truth:
    """The same content in arrays."""

    def column(key: str, dtype: Any) -> np.ndarray:
        return np.array([box[key] for box in truth.boxes], dtype)

    return Truth(
        name,
        truth.image_ids,
        truth.category_ids,
        truth.class_names,
        files,
        column("image_id", np.int64),
        column("category_id", np.int64),
        column("bbox", np.float64).reshape(-1, 4),
        column("area", np.float64),
        column("iscrowd", bool),
    )


def _files(name: str, image_ids: Sequence[Any]) -> list[str]:
    annotations = dataset_annotations(name)
    if annotations is None:
        found = {record["image_id"]: record["file_name"] for record in dataset_records(name)}
        return [found[image_id] for image_id in image_ids]
    root = MetadataCatalog.get(name).image_root
    return [os.path.join(root, image.file_name) for image in annotations.images]


def _checked(truth: Truth) -> Truth:
    if not truth.positives.sum():
        raise ValueError(
            f"{shown(truth.name)} has no boxes to compare detections with: name annotated data."
        )
    return truth


class Scored:
    """Detections of a data set beside its ground truth.

    Detections are kept in COCO's order of evaluation: by class, then by falling score, then by
    image, then as in the file. Of an image and class only the best ``max_dets`` are kept.

    Attributes:
        truth: the ground truth.
        images, classes, boxes, scores: of D detections, as :class:`.DetectionArrays` has them.
        starts: (K + 1,) int64, where the detections of each class begin.
        left_out: how many detections were beyond ``max_dets``.
    """

    def __init__(self, truth: Truth, found: DetectionArrays, max_dets: int = 100) -> None:
        self.truth = truth
        order = np.lexsort((found.images, -found.scores, found.classes))
        images, classes = found.images[order], found.classes[order]
        kept = ranks(classes * len(truth.image_ids) + images) < max_dets
        order = order[kept]
        self.left_out = int(len(kept) - len(order))
        self.images, self.classes = found.images[order], found.classes[order]
        self.boxes = found.boxes[order].astype(np.float64)
        self.scores = found.scores[order].astype(np.float64)
        self.starts = np.searchsorted(self.classes, np.arange(len(truth.class_names) + 1))

    def __len__(self) -> int:
        return len(self.scores)


def read_scored(
    truth: Truth, results: str | os.PathLike[str], max_dets: int = 100
) -> tuple[Scored, DetectionArrays]:
    """The detections of a file, ordered and as they stand there; see :func:`read_results`."""
    found = read_results(results, truth.image_ids, truth.category_ids)
    return Scored(truth, found, max_dets), found


def ranks(groups: np.ndarray) -> np.ndarray:
    """(D,) int64: how many earlier entries of each entry's group there are."""
    order = np.argsort(groups, kind="stable")
    in_order = groups[order]
    starts = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]]) if len(groups) else order
    sizes = np.diff(np.r_[starts, len(groups)])
    found = np.empty(len(groups), np.int64)
    found[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return found
