"""Parsing of annotation files in COCO's detection format, entry by entry.

Files are written by many programs. Where only one reading is possible, a value of another type is
taken for what it says, with a note: ids that are whole numbers as text or with a ``.0``, names that
are numbers, flags as text or null. Everything else is a fault of its entry.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from detectron2.utils.file_io import PathManager

from .faults import NO_AREA, Faults, as_area, as_flag, as_numbers, shown

Id = int | str


class ImageEntry(NamedTuple):
    """An image of the file; ``width`` and ``height`` in pixels."""

    id: Id
    file_name: str
    width: int
    height: int


class BoxColumns(NamedTuple):
    """The attributes of these names of :class:`~.annotations.Annotations`."""

    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray
    ids: list[Any]


_NO_BOXES = BoxColumns(
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    np.empty((0, 4), np.float64),
    np.empty(0, np.float64),
    np.empty(0, bool),
    [],
)


def read_json_object(json_file: str | os.PathLike[str]) -> dict[str, Any]:
    """As :func:`read_json`, of a file that must hold an object, as COCO's do.

    Raises:
        FileNotFoundError, ValueError: as there, or it is not a JSON object.
    """
    content = read_json(json_file)
    if not isinstance(content, dict):
        raise ValueError(
            f"{os.fspath(json_file)}: expected a JSON object in COCO format, got a list or a value."
        )
    return content


def read_json(json_file: str | os.PathLike[str]) -> Any:
    """Parsed JSON of a file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no regular file, or not JSON; the message names it.
    """
    path = os.fspath(json_file)
    if not PathManager.exists(path):
        raise FileNotFoundError(f"Annotation file not found: {path}")
    local = PathManager.get_local_path(path)
    mode = os.stat(local).st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder; name the annotation file in it" if stat.S_ISDIR(mode) else "no file"
        raise ValueError(f"{path} is {kind}.")
    try:
        with open(local, encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError(f"{path} is not usable JSON: nested too deeply.") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON in UTF-8 ({error}): save it in that encoding."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that stands there twice, Python would drop the first value."""
    content = dict(pairs)
    if len(content) < len(pairs):
        key = _repeated(key for key, _ in pairs)[0]
        raise ValueError(
            f"the key {shown(key)!r} stands twice in one object, which begins with "
            f"{shown({k: v for k, v in pairs[:3] if not isinstance(v, list | dict)})}; keep one"
        )
    return content


class CocoReader:
    """Goes through the parts of one file; each method drops the faulty entries."""

    def __init__(self, json_file: str | os.PathLike[str]) -> None:
        """Parse the file; raises as :func:`read_json_object`."""
        self.json_file = os.fspath(json_file)
        self.content = read_json_object(json_file)
        self.faults = Faults()
        self.taken: Counter[str] = Counter()  # kinds of values that were taken for what they say

    def read(self) -> tuple[dict[int, str], list[ImageEntry], BoxColumns]:
        """Categories ({id: name}), images, and the boxes that belong to these."""
        categories, images = self.categories(), self._images()
        found = _NO_BOXES
        if not self.faults.errors:  # what follows would only report the same again
            found = self._annotations(self._annotation_entries(), images, categories)
        self.faults.notes += [f"{count} {what}" for what, count in self.taken.items()]
        return categories, images, found

    def categories(self) -> dict[int, str]:
        """{id: name}, sorted by id."""
        part = self._part("categories")
        fault = "category with an unusable {!r}"
        missing: list[str] = []
        ids = self._values(part, "id", self._whole_number, fault, missing)
        names = self._values(part, "name", self._name, fault, missing)
        self.faults.error("incomplete categories", missing)
        entries = [row for row in zip(ids, names, strict=True) if None not in row]
        self.faults.error("category id used twice", _repeated(n for n, _ in entries))
        self.faults.error("category name used twice", _repeated(n for _, n in entries))
        self.faults.warn(
            "category names that differ in case or spaces only, and are two classes",
            _alike(sorted({name for _, name in entries})),
        )
        return dict(sorted(entries))

    def _images(self) -> list[ImageEntry]:
        part = self._part("images")
        fault, no_size = "image with an unusable {!r}", "image without a positive size"
        missing: list[str] = []
        columns = [
            self._values(part, "id", self._image_id, fault, missing),
            self._values(part, "file_name", self._name, fault, missing),
            self._values(part, "width", self._size, no_size, missing),
            self._values(part, "height", self._size, no_size, missing),
        ]
        self.faults.error("incomplete images", missing)
        images = [ImageEntry(*row) for row in zip(*columns, strict=True) if None not in row]
        # 1 and "1" would be one image to a person.
        self.faults.error("image id used twice", _repeated(str(i.id) for i in images))
        self.faults.warn("image file listed twice", _repeated(i.file_name for i in images))
        return sorted(images, key=lambda image: (isinstance(image.id, str), image.id))

    def _part(self, key: str) -> list[Any]:
        part = self.content.get(key)
        if isinstance(part, list) and part:
            return part
        self.faults.error(f"no {key}", [f"'{key}' is missing, empty or no list"])
        return []

    def _values(
        self,
        part: list[Any],
        key: str,
        convert: Callable[[Any], Any],
        fault: str,
        missing: list[str],
    ) -> list[Any]:
        """One value of each entry, None where it is no such value or, as is noted, missing."""
        converted: list[Any] = []
        wrong = []
        for i, entry in enumerate(part):
            if not isinstance(entry, dict) or key not in entry:
                given = "" if isinstance(entry, dict) else f" ({shown(entry)})"
                missing.append(f"entry {i} lacks {key!r}{given}")
                converted.append(None)
                continue
            converted.append(convert(entry[key]))
            if converted[-1] is None:
                of = f" ({shown(entry['file_name'])})" if "file_name" in entry else ""
                wrong.append(f"entry {i}{of}: {shown(entry[key])}")
        self.faults.error(fault.format(key), wrong)
        return converted

    def _whole_number(self, value: Any) -> int | None:
        """An int, or what can only mean one."""
        if type(value) is int:
            return value if abs(value) < 2**63 else None
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            self.taken["whole numbers written as 1.0, taken for 1"] += 1
            return int(value)
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
            number = int(value) if len(value) < 19 else None
            self.taken['whole numbers written as text ("1"), taken for numbers'] += 1
            return number
        return None

    def _name(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        if not isinstance(value, str):
            if not math.isfinite(value) or abs(value) >= 2**63:
                return None
            self.taken["names that are numbers, taken for text"] += 1
        text = str(value)
        return text if text.strip() and _is_text(text) else None

    def _image_id(self, value: Any) -> Id | None:
        """Text stays text: results carry the id as the file has it."""
        if isinstance(value, str):
            return value if _is_text(value) else None
        return self._whole_number(value)

    def _size(self, value: Any) -> int | None:
        number = self._whole_number(value)
        return number if number is not None and number > 0 else None

    def _annotation_entries(self) -> list[dict[str, Any]]:
        """The annotations that are objects with all that they need."""
        part = self.content.get("annotations")
        if part is None or part == []:
            self.faults.warn(
                "no annotations", ["the file can be used for inference, not for training"]
            )
            return []
        if not isinstance(part, list):
            self.faults.error("annotations", [f"'annotations' is no list: {shown(part)}"])
            return []
        needed = ("id", "image_id", "category_id", "bbox")
        lacking, entries = [], []
        for i, entry in enumerate(part):
            if not isinstance(entry, dict):
                lacking.append(f"entry {i} is no object: {shown(entry)}")
            elif absent := [key for key in needed if entry.get(key) is None]:
                lacking.append(f"entry {i} lacks {', '.join(map(repr, absent))}")
            else:
                entries.append(entry)
        self.faults.error("incomplete annotations", lacking)
        if "minival" not in self.json_file:  # COCO 2014's, which has such and is in use as it is
            repeated = _repeated(shown(x["id"]) for x in entries)
            self.faults.error("annotation id used twice", repeated)
        ignored = [
            f"annotation {shown(x['id'])}" for x in entries if as_flag(x.get("ignore")) is not False
        ]
        self.faults.error(
            "annotation marked 'ignore', which is not supported (use iscrowd)", ignored
        )
        return entries

    def _annotations(
        self, entries: list[dict[str, Any]], images: list[ImageEntry], categories: dict[int, str]
    ) -> BoxColumns:
        positions: dict[str | None, int] = {str(image.id): i for i, image in enumerate(images)}
        classes: dict[int | None, int] = {number: k for k, number in enumerate(categories)}
        columns = [
            self._column(entries, "image_id", "unknown image id", lambda x: positions.get(_key(x))),
            self._column(
                entries,
                "category_id",
                "unknown category id",
                lambda x: classes.get(self._whole_number(x)),
            ),
            self._column(
                entries,
                "bbox",
                "box that is not four numbers [x, y, width, height]",
                lambda x: as_numbers(x, 4),
            ),
            self._column(entries, "area", "'area' that is no number of at least 0", as_area),
            self._column(entries, "iscrowd", "'iscrowd' that is neither true nor false", as_flag),
            [x["id"] for x in entries],
        ]
        rows = [row for row in zip(*columns, strict=True) if None not in row]
        if not rows:
            return _NO_BOXES
        image, category, boxes, areas, crowds, ids = zip(*rows, strict=True)
        numbers, given = np.array(boxes, np.float64), np.array(areas, np.float64)
        own = box_areas(numbers)
        return BoxColumns(
            np.array(image, np.int64),
            np.array(category, np.int64),
            numbers,
            np.where(given == NO_AREA, own, given),
            np.array(crowds, bool),
            list(ids),
        )

    def _column(
        self,
        entries: list[dict[str, Any]],
        key: str,
        fault: str,
        convert: Callable[[Any], Any],
    ) -> list[Any]:
        """One value of each annotation, None where there is no such value, which is a fault."""
        converted = [convert(x.get(key)) for x in entries]
        wrong = [
            f"{shown(x.get(key))} in annotation {shown(x['id'])} of image {shown(x['image_id'])}"
            for x, value in zip(entries, converted, strict=True)
            if value is None
        ]
        self.faults.error(fault, wrong)
        return converted


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """(N,) areas, in px^2, of (N, 4) x, y, width, height; infinite where float64 overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return boxes[:, 2] * boxes[:, 3]


def _repeated(entries: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(entries).items() if count > 1]


def _alike(names: Iterable[str]) -> list[str]:
    """Groups of different names that a person would take for one, such as ``cat`` and ``Cat ``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    return [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]


def _is_text(text: str) -> bool:
    """Whether a string can be written at all; JSON may hold halves of surrogate pairs."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _key(image_id: Any) -> str | None:
    """What an image id is looked up by: 1, 1.0 and "1" mean the same image."""
    if isinstance(image_id, float) and image_id.is_integer():
        image_id = int(image_id)
    is_id = isinstance(image_id, str | int) and not isinstance(image_id, bool)
    return str(image_id) if is_id and (isinstance(image_id, str) or abs(image_id) < 2**63) else None
