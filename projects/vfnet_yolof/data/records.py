"""Records of data sets that are registered as functions: checked, and in plain Python numbers."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode, PolygonMasks

from .faults import Faults, shown


def checked_records(name: str, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the records of data set ``name`` in which numpy's numbers are Python's.

    Records without annotations (test sets) stay so. What a record holds beyond Detectron2's
    standard fields is kept as it is.

    Raises:
        ValueError: records that cannot be used; the message names the data set and the entries.
    """
    faults = Faults()
    classes = MetadataCatalog.get(name).get("thing_classes")
    checked, wrong_boxes, wrong_classes, lacking = [], [], [], []
    for number, record in enumerate(records):
        record = {key: _plain(value) for key, value in record.items()}
        absent = [key for key in ("file_name", "image_id") if record.get(key) is None]
        if absent:
            lacking.append(f"record {number} lacks {', '.join(map(repr, absent))}")
            continue
        if record.get("annotations") is not None:
            record["annotations"] = [_annotation(x) for x in record["annotations"]]
            for annotation in record["annotations"]:
                place = f"of image {shown(record['image_id'])}"
                if not _is_box(annotation):
                    wrong_boxes.append(f"{shown(annotation.get('bbox'))} {place}")
                if not _is_class(annotation.get("category_id"), classes):
                    wrong_classes.append(f"{shown(annotation.get('category_id'))} {place}")
        checked.append(record)
    faults.error("incomplete records", lacking)
    faults.error("box that is not finite numbers in a 'bbox_mode' of Detectron2", wrong_boxes)
    count = f" (0 to {len(classes) - 1})" if classes else ""
    faults.error(f"'category_id' that is no class of the model{count}", wrong_classes)
    ids = Counter(shown(record["image_id"]) for record in checked)
    faults.error("image id used twice", [i for i, times in ids.items() if times > 1])
    faults.require_no_errors(f"Data set {name!r} cannot be used")
    return checked


def box_area(annotation: Mapping[str, Any], width: float, height: float) -> float:
    """Area in square pixels that decides the size class: given, of the outline, or of the box."""
    if annotation.get("area") is not None:
        return float(annotation["area"])
    outline = annotation.get("segmentation")
    if isinstance(outline, list) and outline:
        return float(PolygonMasks([outline]).area()[0])
    if isinstance(outline, Mapping) and isinstance(outline.get("counts"), bytes | str):
        return float(mask_util.area(outline))
    return width * height


def _plain(value: Any) -> Any:
    """Python's number for one of numpy's (a file name is no number and stays)."""
    return value.item() if isinstance(value, np.generic) else value


def _annotation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: _plain(value) for key, value in annotation.items()}
    box = plain.get("bbox")
    if isinstance(box, np.ndarray | list | tuple):
        plain["bbox"] = [_plain(x) for x in box]
    return plain


def _is_box(annotation: Mapping[str, Any]) -> bool:
    box = annotation.get("bbox")
    try:
        mode = BoxMode(annotation.get("bbox_mode"))
    except ValueError:
        return False
    length = 5 if mode == BoxMode.XYWHA_ABS else 4
    return (
        isinstance(box, list)
        and len(box) == length
        and all(isinstance(x, numbers.Real) and math.isfinite(x) for x in box)
    )


def _is_class(value: Any, classes: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return False
    return not classes or value < len(classes)
