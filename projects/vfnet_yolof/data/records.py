"""Records of data sets that are registered as functions: checked, and in plain Python numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode, PolygonMasks

from .faults import Faults, as_area, as_flag, as_numbers, shown

_BOX_LENGTHS = {BoxMode.XYXY_ABS: 4, BoxMode.XYWH_ABS: 4, BoxMode.XYWHA_ABS: 5}


def checked_records(name: str, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the records of data set ``name`` as training and evaluation take them.

    numpy's numbers are Python's, flags are 0 or 1, and a rotated box is the upright one around it.
    Records without annotations (test sets) stay so. What a record holds beyond Detectron2's
    standard fields is kept as it is.

    Raises:
        ValueError: records that cannot be used; the message names the data set and the entries.
    """
    return _Checker(MetadataCatalog.get(name).get("thing_classes")).check(name, records)


class _Checker:
    """Goes through the records of one data set; ``wrong`` has the faulty entries by their fault."""

    def __init__(self, classes: Any) -> None:
        self.classes = classes
        self.wrong: dict[str, list[str]] = {}

    def check(self, name: str, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        numbered = enumerate(records)
        checked = [r for r in (self._record(i, record) for i, record in numbered) if r is not None]
        ids = Counter(shown(record["image_id"]) for record in checked)
        self.wrong["image id used twice"] = [i for i, times in ids.items() if times > 1]
        faults = Faults()
        for fault, entries in self.wrong.items():
            faults.error(fault, entries)
        faults.require_no_errors(f"Data set {name!r} cannot be used")
        return checked

    def _found(self, fault: str, entry: str) -> None:
        self.wrong.setdefault(fault, []).append(entry)

    def _record(self, number: int, given: Any) -> dict[str, Any] | None:
        if not isinstance(given, Mapping):
            self._found("record that is no mapping", f"record {number}: {shown(given)}")
            return None
        record = {key: _plain(value) for key, value in given.items()}
        absent = [key for key in ("file_name", "image_id") if record.get(key) is None]
        if absent:
            self._found(
                "incomplete records", f"record {number} lacks {', '.join(map(repr, absent))}"
            )
            return None
        place = f"of image {shown(record['image_id'])}"
        if isinstance(record["image_id"], bool) or not isinstance(record["image_id"], int | str):
            self._found("image id that is neither a whole number nor text", f"record {number}")
            return None
        for key in ("width", "height"):
            if record.get(key) is None:  # the mapper fills in what is absent
                record.pop(key, None)
            elif not (type(record[key]) is int and record[key] > 0):
                self._found(
                    "size that is no whole number above 0", f"{key} {shown(record[key])} {place}"
                )
                return None
        if record.get("annotations") is not None:
            found = record["annotations"]
            if not isinstance(found, list | tuple) or not all(
                isinstance(x, Mapping) for x in found
            ):
                self._found("'annotations' that are no list of mappings", place)
                return None
            record["annotations"] = [self._annotation(x, record, place) for x in found]
        else:
            record.pop("annotations", None)
        return record

    def _annotation(
        self, given: Mapping[str, Any], record: Mapping[str, Any], place: str
    ) -> dict[str, Any]:
        plain = {key: _plain(value) for key, value in given.items()}
        self._box(plain, record, place)
        category, crowd = plain.get("category_id"), as_flag(plain.get("iscrowd"))
        if not _is_class(category, self.classes):
            count = f" (0 to {len(self.classes) - 1})" if self.classes else ""
            self._found(
                f"'category_id' that is no class of the model{count}", f"{shown(category)} {place}"
            )
        if crowd is None:
            self._found(
                "'iscrowd' that is neither true nor false", f"{shown(plain['iscrowd'])} {place}"
            )
        if as_area(plain.get("area")) is None:
            self._found("'area' that is no number of at least 0", f"{shown(plain['area'])} {place}")
        plain["iscrowd"] = int(bool(crowd))
        return plain

    def _box(self, plain: dict[str, Any], record: Mapping[str, Any], place: str) -> None:
        """Checks the box and writes it as plain numbers."""
        given = plain.get("bbox")
        entry = f"{shown(given)} {place}"
        try:
            mode = BoxMode(plain.get("bbox_mode"))
            length = _BOX_LENGTHS[mode]
        except (KeyError, ValueError):
            length = 0
        items = [_plain(x) for x in given] if isinstance(given, np.ndarray | list | tuple) else None
        box = as_numbers(items, length) if length else None
        if box is None or not all(map(math.isfinite, box)):
            self._found(
                "box that is not finite numbers of pixels in a 'bbox_mode' of Detectron2", entry
            )
            return
        x1, y1, x2, y2 = BoxMode.convert(tuple(box), mode, BoxMode.XYXY_ABS)
        width, height = record.get("width", math.inf), record.get("height", math.inf)
        if not math.isfinite((x2 - x1) * (y2 - y1)):
            self._found("box too large for a number", entry)
        elif x2 < x1 or y2 < y1:
            self._found("box of negative width or height", entry)
        elif min(x2 - x1, y2 - y1) > 0 and (x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0):
            self._found("box entirely outside its image", entry)
        if mode == BoxMode.XYWHA_ABS:
            box, plain["bbox_mode"] = [x1, y1, x2, y2], BoxMode.XYXY_ABS
        plain["bbox"] = box


def box_area(annotation: Mapping[str, Any], width: float, height: float) -> float:
    """Area in square pixels that decides the size class: given, of the outline, or of the box.

    As in Detectron2's evaluation. An outline that encloses nothing, or of a form that is none of
    Detectron2's, does not count.
    """
    if annotation.get("area") is not None:
        return float(annotation["area"])
    outline = annotation.get("segmentation")
    if _are_polygons(outline):
        return float(PolygonMasks([outline]).area()[0])
    if (
        isinstance(outline, Mapping)
        and "size" in outline
        and isinstance(outline.get("counts"), bytes | str)
    ):
        return float(mask_util.area(outline))
    return width * height


def _are_polygons(outline: Any) -> bool:
    if not isinstance(outline, list) or not outline:
        return False
    lists = [x.tolist() if isinstance(x, np.ndarray) else x for x in outline]
    return all(
        isinstance(x, list)
        and len(x) >= 6
        and len(x) % 2 == 0
        and as_numbers(x, len(x)) is not None
        for x in lists
    )


def _plain(value: Any) -> Any:
    """Python's number for one of numpy's (a file name is no number and stays)."""
    return value.item() if isinstance(value, np.generic) else value


def _is_class(value: Any, classes: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return False
    return not classes or value < len(classes)
