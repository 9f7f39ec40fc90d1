"""What the readers of all formats share: images, their boxes, and how files are found and read.

A reader turns annotation files into :class:`LabelledImage`. What cannot be used as meant raises a
ValueError that begins with file and line, or file and entry. What has only one sensible reading, an
outline for its box among it, is mapped and noted among the :class:`Images`' remarks.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..faults import shown

IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)
ANNOTATION_FOLDERS = ("Annotations", "annotations", "labels")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images")
_SPLITS = {  # by the names of folders and files, in small letters
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# Remarks; how many comes before, and where the first is after.
OUTLINES = "outlines or turned boxes, of which the upright box around them is used"
IGNORED = "objects marked difficult, neither learnt nor demanded (iscrowd)"
OTHER_SHAPES = "points, lines, masks and the like, left out"
NO_IMAGE = "annotations whose image is not there, left out"

Files = dict[str, list[Path]]  # annotation files by split; "" where it is one set without a name


class Box(NamedTuple):
    """A box in pixels of its image, as the annotations have it; ``ignored`` as COCO's iscrowd."""

    label: str
    x: float
    y: float
    width: float
    height: float
    ignored: bool = False


class LabelledImage(NamedTuple):
    """An image file and its boxes; ``size`` (width, height) in px where the annotations say it."""

    path: Path
    boxes: list[Box]
    size: tuple[int, int] | None = None


class Labelled(NamedTuple):
    """What a reader found.

    Attributes:
        splits: images by ``"train"``, ``"val"``, or ``""`` where it is one set without a name.
        class_names: in the format's own order, None where it has none.
    """

    splits: dict[str, list[LabelledImage]]
    class_names: list[str] | None = None


class Images:
    """The image files of a data set, found by what annotation files call them."""

    def __init__(self, root: Path) -> None:
        """``root``: images that annotations name without their folder are below it, or beside it
        in a folder for images.
        """
        self.root = root
        self.left_out: set[Path] = set()  # that a remark tells of already, or of a test set
        self.remarks: dict[str, list[str]] = defaultdict(list)  # what: where
        self._listings: dict[Path, dict[str, list[Path]]] = {}

    def labelled(
        self,
        name: str,
        annotations: Path,
        where: str,
        boxes: list[Box],
        size: tuple[int, int] | None = None,
        stem: str | None = None,
        also: str | None = None,
    ) -> Iterator[LabelledImage]:
        """The image with its boxes; none, and a remark, where there is no such file.

        Args:
            name: what the annotations call it; ``also``: another name, if that is not there.
            where: for messages.
            annotations: their file, whose folder ``name`` is relative to.
            stem: the image's name without suffix where it is that of the annotation file. It goes
                before ``name``, which many programs do not change when files are renamed.
        """
        path = self._of_stem(stem, name, annotations, where) if stem is not None else None
        for called in (name, also):
            if path is None and called is not None:
                path = self._named(called, annotations.parent, where)
        if path is None:
            self.remarks[NO_IMAGE].append(f"{where} ({shown(name)})")
        else:
            yield LabelledImage(path, boxes, size)

    def _of_stem(self, stem: str, name: str, annotations: Path, where: str) -> Path | None:
        folder = annotations.parent
        beside = (folder, *(folder.parent / other for other in _IMAGE_FOLDERS))
        # annotations/train/a.xml goes with images/train/a.jpg
        twins = (folder.parent.parent / other / folder.name for other in _IMAGE_FOLDERS)
        for place in (*beside, *twins):
            found = self._listing(place).get(_same(stem), [])
            named = [path for path in found if _same(path.name) == _same(_last(name))]
            if len(found) > 1 and len(named) != 1:
                raise ValueError(f"{where}: belongs to {found[0]} or to {found[1]}; remove one.")
            if found:
                return (named or found)[0]
        return None

    def _named(self, name: str, folder: Path, where: str) -> Path | None:
        name = name.replace("\\", "/")
        try:
            if (folder / name).is_file():
                return Path(os.path.normpath(folder / name))
        except (OSError, ValueError):  # too long, or with a NUL
            return None
        split = self._split(folder)
        known = self._below.get(_same(_last(name)), [])
        candidates = [path for path in known if split == "" or self._split(path) in ("", split)]
        wanted = PurePosixPath(name).parts
        ranks = [_common_end(path.parts, wanted) for path in candidates]
        best = [p for p, rank in zip(candidates, ranks, strict=True) if rank == max(ranks)]
        if len(best) > 1:
            raise ValueError(
                f"{where}: image {shown(name)} may be {best[0]} or {best[1]}; name it with folder."
            )
        return best[0] if best else None

    def _split(self, path: Path) -> str:
        """The split whose folder a path below the root is in, "" for none."""
        below = path.relative_to(self.root).parts if path.is_relative_to(self.root) else ()
        return next((_SPLITS[part.lower()] for part in below if part.lower() in _SPLITS), "")

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        """Image files of a folder by their names without suffix."""
        if folder not in self._listings:
            listing: dict[str, list[Path]] = defaultdict(list)
            for path in images_in(folder):
                listing[_same(path.stem)].append(path)
            self._listings[folder] = dict(listing)
        return self._listings[folder]

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        beside = [self.root.parent / name for name in _IMAGE_FOLDERS]
        paths = {p for folder in (self.root, *beside) for p in images_below(folder)}
        for path in sorted(paths):
            found[_same(path.name)].append(path)
        return found


def images_in(folder: Path) -> list[Path]:
    """Image files that lie in a folder itself, sorted; none where it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if is_image(p.name) and p.is_file())


def images_below(folder: Path) -> list[Path]:
    """Image files in a folder and its subfolders, links among them, sorted."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in names if is_image(name)]
    return sorted(found)


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("._")


def split_folders(root: Path) -> dict[str, Path]:
    """Subfolders that are called as splits are: ``train``, ``val`` or ``valid``, ``test``.

    Raises:
        ValueError: two of them mean the same split.
    """
    folders: dict[str, Path] = {}
    if root.is_dir():
        for path in sorted(root.iterdir()):
            split = _SPLITS.get(path.name.lower())
            if split and path.is_dir():
                if split in folders:
                    raise ValueError(
                        f"{root} has {folders[split].name} and {path.name}; remove one."
                    )
                folders[split] = path
    return folders


def split_of_name(stem: str) -> str:
    """``"train"`` of ``instances_train2017``, and so on; ``""`` where the name says nothing."""
    found = {_SPLITS[word] for word in re.split(r"[^a-z]+", stem.lower()) if word in _SPLITS}
    return found.pop() if len(found) == 1 else ""


def annotation_files(root: Path, suffix: str, is_known: Callable[[Path], bool]) -> Files:
    """The annotation files of a folder, by split where subfolders are called so.

    They lie in the folder or its splits, or there in a folder for annotations.

    Args:
        suffix: of all files. is_known: tells of one file; where one is, its whole folder counts.

    Raises:
        ValueError: some lie in a folder and others in its splits.
    """
    for base in (root, *(root / name for name in ANNOTATION_FOLDERS)):
        own = _files_in(base, suffix, is_known)
        parts = {
            split: found
            for split, folder in split_folders(base).items()
            if (found := _first_files(folder, suffix, is_known))
        }
        if own and parts:
            raise ValueError(
                f"{base} has annotations itself ({own[0].name}) and in its folders "
                f"({next(iter(parts.values()))[0]}); name one of them."
            )
        if parts or own:
            return parts or {"": own}
    return {}


def _first_files(folder: Path, suffix: str, is_known: Callable[[Path], bool]) -> list[Path]:
    places = (folder, *(folder / name for name in ANNOTATION_FOLDERS))
    return next((found for p in places if (found := _files_in(p, suffix, is_known))), [])


def _files_in(folder: Path, suffix: str, is_known: Callable[[Path], bool]) -> list[Path]:
    if not folder.is_dir():
        return []
    files = sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() == suffix and p.is_file() and not p.name.startswith(".")
    )
    return files if any(map(is_known, files)) else []


def number(value: Any, where: str, what: str) -> float:
    """A finite number that may be written as text.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
        if math.isfinite(found):
            return found
    raise ValueError(f"{where}: {what} should be a number, not {shown(value)!r}.")


def label(value: Any, where: str, what: str = "the class") -> str:
    """A class name; numbers become text.

    Raises:
        ValueError: it is empty or something else.
    """
    if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    raise ValueError(f"{where}: {what} should be a name, not {shown(value)!r}.")


def stated_size(width: Any, height: Any, where: str) -> tuple[int, int] | None:
    """(width, height) px; None where they are absent or 0, as some programs write them.

    Raises:
        ValueError: they are something else.
    """
    if width in (None, "") or height in (None, ""):
        return None
    sides = number(width, where, "the image's width"), number(height, where, "the image's height")
    if 0 in sides:
        return None
    if not all(side > 0 and side.is_integer() for side in sides):
        raise ValueError(
            f"{where}: the image's size should be whole numbers of pixels, not "
            f"{shown(width)} x {shown(height)}."
        )
    return int(sides[0]), int(sides[1])


def between(name: str, corners: Sequence[float], where: str) -> Box:
    """The box between two corners, x1, y1, x2, y2 in pixels.

    Raises:
        ValueError: the second one is left of the first, or above it.
    """
    x1, y1, x2, y2 = corners
    if x2 < x1 or y2 < y1:
        raise ValueError(f"{where}: the box ends before it begins: {x1:g} {y1:g} {x2:g} {y2:g}.")
    return Box(name, x1, y1, x2 - x1, y2 - y1)


def sized(name: str, values: Sequence[float], where: str) -> Box:
    """The box of a corner and its sides: x, y, width, height in pixels.

    Raises:
        ValueError: a side is negative.
    """
    x, y, width, height = values
    if width < 0 or height < 0:
        raise ValueError(f"{where}: the box has a negative width or height.")
    return Box(name, x, y, width, height)


def around(name: str, points: Sequence[tuple[float, float]]) -> Box:
    """The upright box around points in pixels."""
    xs, ys = zip(*points, strict=True)
    return Box(name, min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))


def turned(box: Box, degrees: float, pivot: tuple[float, float]) -> Box:
    """The upright box around a box that is turned clockwise about a point."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(box.x + i * box.width, box.y + j * box.height) for i in (0, 1) for j in (0, 1)]
    points = []
    for x, y in corners:
        dx, dy = x - pivot[0], y - pivot[1]
        points.append((pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos))
    return around(box.label, points)


def _common_end(parts: Sequence[str], others: Sequence[str]) -> int:
    """How many of the last parts of two paths are the same."""
    pairs = zip(reversed(parts), reversed(others), strict=False)
    count = 0
    for a, b in pairs:
        if _same(a) != _same(b):
            break
        count += 1
    return count


def _last(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _same(name: str) -> str:
    """One spelling of a name: macOS writes letters and accents apart."""
    return unicodedata.normalize("NFC", name)
