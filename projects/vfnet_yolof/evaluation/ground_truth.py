"""What a data set's detections are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from ..data.annotations import Annotations
from ..data.datasets import dataset_annotations, dataset_records
from ..data.records import box_area


class GroundTruth(NamedTuple):
    """Images, classes and boxes of a data set, read anew whenever they are needed.

    Attributes:
        image_ids: in pycocotools' order (sorted, numbers before text), which decides between equal
            scores.
        category_ids, class_names: of each class of the model.
        boxes: of each box ``image_id`` (its position in ``image_ids``), ``category_id`` (its
            class), ``bbox`` (x, y, width, height in pixels), ``area`` and ``iscrowd``.
        is_annotated: False where the data set has no annotations at all (COCO test-dev).
    """

    image_ids: list[Any]
    category_ids: list[Any]
    class_names: list[str]
    boxes: list[dict[str, Any]]
    is_annotated: bool


def load_ground_truth(dataset_name: str) -> GroundTruth:
    """Of a registered data set, by the reader that training uses.

    Raises:
        KeyError, FileNotFoundError: the data set is unknown or its file is missing.
        ValueError: something in it cannot be used; the message names the entry.
    """
    annotations = dataset_annotations(dataset_name)
    if annotations is not None:
        return _of_file(annotations)
    return _of_records(dataset_name, dataset_records(dataset_name))


def _of_file(annotations: Annotations) -> GroundTruth:
    return GroundTruth(
        [image.id for image in annotations.images],
        list(annotations.categories),
        list(annotations.categories.values()),
        [_box(*row) for row in annotations.rows()],
        len(annotations.boxes) > 0,
    )


def _of_records(dataset_name: str, records: Sequence[dict[str, Any]]) -> GroundTruth:
    metadata = MetadataCatalog.get(dataset_name)
    names = metadata.get("thing_classes")
    if not names:
        raise ValueError(f"Data set {dataset_name!r} is registered without thing_classes.")
    ids = sorted((r["image_id"] for r in records), key=lambda i: (isinstance(i, str), i))
    mapping = metadata.get("thing_dataset_id_to_contiguous_id") or {k: k for k in range(len(names))}
    if sorted(mapping.values()) != list(range(len(names))):
        raise ValueError(
            f"Data set {dataset_name!r}: thing_dataset_id_to_contiguous_id must give each of the "
            f"{len(names)} classes one category id, got {mapping}."
        )
    return GroundTruth(
        ids,
        sorted(mapping, key=mapping.__getitem__),
        list(names),
        list(_boxes_of(records, {image_id: i for i, image_id in enumerate(ids)})),
        any("annotations" in record for record in records),
    )


def _boxes_of(
    records: Sequence[dict[str, Any]], positions: dict[Any, int]
) -> Iterator[dict[str, Any]]:
    for record in records:
        for annotation in record.get("annotations", ()):
            box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
            x, y, width, height = (float(value) for value in box)
            yield _box(
                positions[record["image_id"]],
                annotation["category_id"],
                [x, y, width, height],
                box_area(annotation, width, height),
                annotation.get("iscrowd", 0),
            )


def _box(image: int, category: int, box: list[float], area: float, crowd: Any) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": area,
        "iscrowd": int(crowd),
    }
