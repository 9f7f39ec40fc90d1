"""Where a data set's annotations and images lie when only its folder is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

ROBOFLOW_JSON = "_annotations.coco.json"


class Split(NamedTuple):
    """COCO annotations, and the folder that their file names are relative to."""

    json_file: str
    images: str


class Splits(NamedTuple):
    """What a folder holds; None for a split that it lacks."""

    train: Split | None
    val: Split | None


class _Layout(NamedTuple):
    """Paths below the data set's folder: (annotations, images) of each split."""

    name: str
    train: tuple[str, str]
    val: tuple[str, str]


_LAYOUTS = (
    _Layout(
        "train.json with train/, val.json with val/", ("train.json", "train"), ("val.json", "val")
    ),
    _Layout(
        "train/_annotations.coco.json, valid/_annotations.coco.json, images beside",
        (f"train/{ROBOFLOW_JSON}", "train"),
        (f"valid/{ROBOFLOW_JSON}", "valid"),
    ),
    _Layout(
        "annotations/instances_train2017.json with train2017/, and val2017 likewise",
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_val2017.json", "val2017"),
    ),
)


def open_data(path: str | os.PathLike[str], split: float | None = None) -> Splits:
    """The splits of a folder, or one file as the first of them."""
    if Path(path).suffix == ".json":
        return Splits(find_images(path), None)
    return find_splits(path)


def find_splits(folder: str | os.PathLike[str]) -> Splits:
    """The splits of a data set's folder, which must be laid out in one of three ways.

    - ``train.json`` and ``train/``, ``val.json`` and ``val/``;
    - ``train/_annotations.coco.json``, ``valid/_annotations.coco.json``, the images beside them;
    - ``annotations/instances_train2017.json`` and ``train2017/``, ``val2017`` likewise.

    Raises:
        FileNotFoundError: no such folder, or annotations without their folder of images.
        ValueError: it is laid out in none of these ways, or in several.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"--data {root}: there is no such file or folder.")
    found = [
        layout
        for layout in _LAYOUTS
        if any((root / json_file).is_file() for json_file, _ in (layout.train, layout.val))
    ]
    if len(found) != 1:
        names = "; ".join(layout.name for layout in found or _LAYOUTS)
        problem = f"several layouts ({names})" if found else f"none of the known layouts ({names})"
        raise ValueError(
            f"--data {root}: has {problem}. Name the files with --train-json, --train-images, "
            "--val-json and --val-images."
        )
    return Splits(_split(root, found[0].train), _split(root, found[0].val))


def find_images(json_file: str | os.PathLike[str]) -> Split:
    """The images of one annotation file, which lie as in the layouts of :func:`find_splits`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the images are at none of the places.
    """
    path = Path(json_file)
    if not path.is_file():
        raise FileNotFoundError(f"--data {path}: there is no such file or folder.")
    if path.name == ROBOFLOW_JSON:
        return Split(str(path), str(path.parent))
    if path.parent.name == "annotations" and path.stem.startswith("instances_"):
        images = path.parent.parent / path.stem.removeprefix("instances_")
    else:
        images = path.with_suffix("")
    if not images.is_dir():
        raise ValueError(
            f"--data {path}: its images should be in {images}, which is no folder. Name them with "
            "--train-images or --val-images, and the file with --train-json or --val-json."
        )
    return Split(str(path), str(images))


def _split(root: Path, names: tuple[str, str]) -> Split | None:
    json_file, images = (root / name for name in names)
    if not json_file.is_file():
        return None
    if not images.is_dir():
        raise FileNotFoundError(f"--data {root}: {json_file.name} needs the folder {images}.")
    return Split(str(json_file), str(images))
