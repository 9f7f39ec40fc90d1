"""Reading detections from a file in COCO's result format, which evaluation writes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..data.coco_reader import read_json
from ..data.faults import Faults, shown
from .coco_ap import DetectionArrays

_KEYS = ("image_id", "category_id", "bbox", "score")


def read_results(
    path: str | os.PathLike[str], image_ids: Sequence[Any], category_ids: Sequence[Any]
) -> DetectionArrays:
    """The detections of a file, in its order; boxes and scores in float64.

    Args:
        image_ids, category_ids: of the data set, by position and by class. ``1``, ``1.0`` and
            ``"1"`` mean the same image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no list of detections, or has entries that cannot be meant for this data
            set: an unknown image or category, a box that is not four finite numbers or has a
            negative side, a score outside of 0 to 1. The message counts and names them.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no results file {path}.")
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ValueError(
            f"{path} is no results file: it must hold a list of detections "
            '[{"image_id": ..., "category_id": ..., "bbox": [x, y, width, height], "score": ...}].'
        )
    faults = Faults()
    entries = _complete(entries, faults)
    images = _positions(entries, "image_id", image_ids, faults)
    classes = _positions(entries, "category_id", category_ids, faults)
    boxes = _boxes(entries, faults)
    scores = np.array([_number(entry["score"]) for entry in entries], np.float64)
    wrong = ~((scores >= 0) & (scores <= 1))
    faults.error("score that is no number from 0 to 1", _named(entries, "score", wrong))
    faults.require_no_errors(f"{path} cannot be used with these annotations")
    return DetectionArrays(images, classes, boxes, scores)


def _complete(entries: list[Any], faults: Faults) -> list[Mapping[str, Any]]:
    whole: list[Mapping[str, Any]] = []
    lacking = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            lacking.append(f"entry {number} is no object: {shown(entry)}")
        elif absent := [key for key in _KEYS if key not in entry]:
            lacking.append(f"entry {number} lacks {', '.join(absent)}")
        else:
            whole.append(entry)
    faults.error("entry that is no detection of a box", lacking)
    return whole


def _positions(
    entries: Sequence[Mapping[str, Any]], key: str, known: Sequence[Any], faults: Faults
) -> np.ndarray:
    place = {_key(value): number for number, value in enumerate(known)}
    found = np.array([place.get(_key(entry[key]), -1) for entry in entries], np.int64)
    faults.error(f"{key} that the annotations do not have", _named(entries, key, found < 0))
    return found


def _key(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


def _boxes(entries: Sequence[Mapping[str, Any]], faults: Faults) -> np.ndarray:
    rows = [_box(entry["bbox"]) for entry in entries]
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    wrong = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1))
    faults.error(
        "box that is not four numbers x, y, width, height",
        _named(entries, "bbox", np.asarray(wrong)),
    )
    return boxes


def _box(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        return [np.nan] * 4
    return [_number(x) for x in value]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _named(entries: Sequence[Mapping[str, Any]], key: str, wrong: np.ndarray) -> list[str]:
    return [
        f"{shown(entries[i][key])} in entry {i} (image {shown(entries[i]['image_id'])})"
        for i in np.flatnonzero(wrong).tolist()
    ]
