"""Tables with a header and one box a row, as Roboflow, TensorFlow's tutorials and others write."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ..faults import shown
from .common import (
    Box,
    Files,
    Images,
    Labelled,
    LabelledImage,
    between,
    label,
    number,
    sized,
    stated_size,
)

# Column names without case, spaces and underscores; the first that is there counts.
IMAGE = (
    *("filename", "imagename", "imagefilename", "file", "image", "img"),
    *("imagepath", "filepath", "path"),
)
LABEL = ("classname", "labelname", "categoryname", "class", "label", "category", "name")
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
SIZES = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
)
IMAGE_SIZES = (("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("width", "height"))


class _Table:
    """The header of a file: which columns have what."""

    def __init__(self, path: Path) -> None:
        """Read the header; ValueError if it is not text in UTF-8."""
        self.path = path
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not text in UTF-8 ({error}): save it so.") from error
        self.delimiter = max(",;\t", key=first.count)
        header = next(csv.reader([first], delimiter=self.delimiter), [])
        self.columns = [x.strip().lower().replace("_", "").replace(" ", "") for x in header]
        self.image, self.label = self._one_of(IMAGE), self._one_of(LABEL)
        self.corners, self.sizes = self._all_of(CORNERS), None
        if self.corners is None:
            self.sizes = self._all_of(SIZES)
        sizes = [pair for pair in IMAGE_SIZES if self.sizes is None or pair != self.sizes[2:]]
        self.image_size = self._all_of(tuple(sizes))

    @property
    def is_known(self) -> bool:
        return None not in (self.image, self.label) and (self.corners or self.sizes) is not None

    def rows(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Where each row is, and its cells by column."""
        twice = sorted({c for c in self.columns if self.columns.count(c) > 1})
        if twice:
            raise ValueError(f"{self.path}, line 1: column {shown(twice[0])} stands there twice.")
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            next(reader)
            try:
                for row in reader:
                    where = f"{self.path}, line {reader.line_num}"
                    if not row:
                        continue
                    if len(row) != len(self.columns):
                        raise ValueError(
                            f"{where}: has {len(row)} cells, the header {len(self.columns)}."
                        )
                    yield where, dict(zip(self.columns, map(str.strip, row), strict=True))
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{self.path}, line {reader.line_num}: {error}.") from error

    def _one_of(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in self.columns), None)

    def _all_of(self, groups: tuple[tuple[str, ...], ...]) -> tuple[str, ...] | None:
        return next((g for g in groups if all(name in self.columns for name in g)), None)


def is_box_table(path: Path) -> bool:
    """Whether the header names an image, a class and a box.

    Raises:
        ValueError: the file is not text in UTF-8.
    """
    return _Table(path).is_known


def read_csv(files: Files, images: Images) -> Labelled:
    """Rows with corners, or with corner, width and height, in pixels counted from 0.

    A row without class and box names an image without boxes.

    Raises:
        ValueError: a row has what cannot be used.
    """
    splits = {}
    for split, paths in files.items():
        if split != "test":
            splits[split] = [image for path in paths for image in _images(_Table(path), images)]
    return Labelled(splits)


def _images(table: _Table, images: Images) -> Iterator[LabelledImage]:
    assert table.image is not None
    boxes: dict[str, list[Box]] = {}
    first: dict[str, tuple[str, tuple[int, int] | None]] = {}  # where, and the image's size
    for where, row in table.rows():
        name = label(row[table.image], where, f"the image in column {table.image!r}")
        size = None
        if table.image_size is not None:
            wide, high = table.image_size
            size = stated_size(row[wide], row[high], where)
        before, known = first.setdefault(name, (where, size))
        if size != known:
            raise ValueError(f"{where}: the image is {size}, but {known} in {before}.")
        found = boxes.setdefault(name, [])
        if (box := _box(table, row, where)) is not None:
            found.append(box)
    for name, (where, size) in first.items():
        yield from images.labelled(name, table.path, where, boxes[name], size)


def _box(table: _Table, row: dict[str, str], where: str) -> Box | None:
    assert table.label is not None
    columns = table.corners or table.sizes
    assert columns is not None
    if not any(row[column] for column in (table.label, *columns)):
        return None
    name = label(row[table.label], where, f"the class in column {table.label!r}")
    values = [number(row[column], where, column) for column in columns]
    return (between if table.corners is not None else sized)(name, values, where)
