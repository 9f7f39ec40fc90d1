"""COCO JSON: where its files lie, writing it, and parting a set into training and validation."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...utils.files import write_atomically
from ...utils.images import ImageReadError, image_size
from ..coco_reader import CocoReader, read_json_object
from .common import LabelledImage, split_of_name

ROBOFLOW_JSON = "_annotations.coco.json"


class Split(NamedTuple):
    """COCO annotations, and the folder that their file names are relative to."""

    json_file: str
    images: str


class _Layout(NamedTuple):
    """Paths below the data set's folder: (annotations, images) of each split."""

    name: str
    train: tuple[str, str]
    val: tuple[str, str]


LAYOUTS = (
    _Layout(
        "train.json with train/, val.json with val/, or both with images/",
        ("train.json", "train"),
        ("val.json", "val"),
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


def layouts_of(root: Path) -> list[_Layout]:
    """Those of the named layouts that a folder has a file of."""
    return [
        layout
        for layout in LAYOUTS
        if any((root / json_file).is_file() for json_file, _ in (layout.train, layout.val))
    ]


def splits_of(root: Path, layout: _Layout) -> dict[str, Split]:
    """The splits that are there; a folder ``images`` may take the place of a split's own.

    Raises:
        ValueError: annotations without their images.
    """
    splits = {}
    for split, names in (("train", layout.train), ("val", layout.val)):
        json_file, images = (root / name for name in names)
        if json_file.is_file():
            known = images.is_dir()
            splits[split] = Split(str(json_file), str(images)) if known else find_images(json_file)
    return splits


def find_images(path: Path) -> Split:
    """The images of one annotation file: as in the layouts, or where the first of them is.

    Raises:
        ValueError: the images are at none of the places.
    """
    folder = path.parent
    if path.name == ROBOFLOW_JSON:
        expected = folder
    elif folder.name == "annotations" and path.stem.startswith("instances_"):
        expected = folder.parent / path.stem.removeprefix("instances_")
    else:
        expected = path.with_suffix("")
    if not expected.is_dir():
        split = split_of_name(path.stem) or path.stem
        above = [folder.parent] if folder.name in ("annotations", "labels") else []
        places = [p / sub for p in (folder, *above) for sub in ("", "images", split)]
        places += [p / "images" / split for p in (folder, *above)]
        content = read_json_object(path).get("images")
        first = content[0] if isinstance(content, list) and content else None
        name = first.get("file_name") if isinstance(first, dict) else None
        there = [p for p in places if isinstance(name, str) and name and (p / name).is_file()]
        if not there:
            raise ValueError(
                f"--data {path}: its images should be in {expected}, which is no folder. Name them "
                "with --train-images or --val-images, and the file with --train-json or --val-json."
            )
        expected = there[0]
    return Split(str(path), str(expected))


def to_coco(
    images: Sequence[LabelledImage], class_names: Sequence[str], root: Path
) -> dict[str, Any]:
    """The content of a COCO file; images are in the order of their paths, all ids count from 1.

    Args:
        root: folder that the file names are relative to.

    Raises:
        ValueError: an image that the annotations do not say the size of cannot be read.
    """
    ids = {name: i for i, name in enumerate(class_names, 1)}
    entries: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, image in enumerate(sorted(images, key=lambda x: x.path), 1):
        width, height = image.size or _measured(image.path)
        name = image.path.relative_to(root).as_posix()
        entries.append({"id": number, "file_name": name, "width": width, "height": height})
        for box in image.boxes:
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number,
                    "category_id": ids[box.label],
                    "bbox": [box.x, box.y, box.width, box.height],
                    "area": box.width * box.height,
                    "iscrowd": int(box.ignored),
                }
            )
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    return {"images": entries, "categories": categories, "annotations": boxes}


def write_coco(path: Path, content: dict[str, Any]) -> None:
    """Write a file whole or not at all, as :func:`~...utils.files.write_atomically`."""
    data = json.dumps(content, ensure_ascii=False).encode()
    write_atomically(path, lambda file: file.write(data))


def _measured(path: Path) -> tuple[int, int]:
    try:
        return image_size(path)
    except ImageReadError as error:
        raise ValueError(str(error)) from error


def parted_coco(json_file: str, share: float) -> dict[str, dict[str, Any]]:
    """Train and val of one COCO file, with all else that it holds.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or :func:`choose_validation` refuses.
    """
    reader = CocoReader(json_file)
    categories, images, boxes = reader.read()
    reader.faults.require_no_errors(f"{json_file} cannot be parted")
    names = list(categories.values())
    classes: list[set[str]] = [set() for _ in images]
    for image, category in zip(boxes.image.tolist(), boxes.category.tolist(), strict=True):
        classes[image].add(names[category])
    chosen = choose_validation([image.file_name for image in images], classes, share)
    # Ids of one image may be written as 1 and "1".
    kept = {str(image.id): chosen[i] for i, image in enumerate(images)}
    content = reader.content
    parts = {}
    for split, wanted in (("train", False), ("val", True)):
        parts[split] = content | {
            "images": [x for x in content["images"] if kept[_id(x["id"])] is wanted],
            "annotations": [
                x for x in content.get("annotations") or [] if kept[_id(x["image_id"])] is wanted
            ],
        }
    return parts


def _id(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)


def choose_validation(
    names: Sequence[str], classes: Sequence[Collection[str]], share: float
) -> list[bool]:
    """Which images are for validation: a stable share of each class.

    Images are grouped by the rarest class in them, and those without boxes make a group. Of each
    group the images whose names have the lowest hashes are taken: its share, rounded so that the
    total is right, and at least one for either side where there are two. The only image of a class
    is for training while others suffice. So the choice depends on the names alone, not on their
    order or folder, and a further image moves only few others.

    Args:
        names: file names, of which the last part counts.
        classes: the names of each image's classes.
        share: above 0 and below 1.

    Raises:
        ValueError: there are fewer than two images.
    """
    if len(names) < 2:
        raise ValueError(f"--split needs two images at least, and there are {len(names)}.")
    frequency = Counter(name for found in classes for name in found)
    groups: dict[str, list[int]] = defaultdict(list)
    for i, found in enumerate(classes):
        groups[min(found, key=lambda name: (frequency[name], name), default="")].append(i)
    order = {i: (_hash(name), name) for i, name in enumerate(names)}
    total = min(max(round(share * len(names)), 1), len(names) - 1)
    counts = _shares({key: len(group) for key, group in groups.items()}, share, total)
    chosen: set[int] = set()
    for key, group in groups.items():
        chosen.update(sorted(group, key=order.__getitem__)[: counts[key]])
    alone = sorted((g[0] for g in groups.values() if len(g) == 1), key=order.__getitem__)
    chosen.update(alone[: max(total - len(chosen), 0)])
    return [i in chosen for i in range(len(names))]


def _shares(sizes: dict[str, int], share: float, total: int) -> dict[str, int]:
    """How many of each group: what is left when all are rounded down goes to the largest rests."""
    most = {key: size - 1 for key, size in sizes.items()}
    counts = {k: min(max(int(share * n), 1), most[k]) for k, n in sizes.items()}
    while left := max(total - sum(counts.values()), 0):
        rest = {k: share * n - counts[k] for k, n in sizes.items() if counts[k] < most[k]}
        if not rest:
            break
        for key in sorted(rest, key=lambda key: (-rest[key], key))[:left]:
            counts[key] += 1
    return counts


def _hash(name: str) -> bytes:
    return hashlib.sha256(os.path.basename(name).encode()).digest()


def counted(images: Iterable[LabelledImage]) -> tuple[int, int]:
    """How many images and boxes."""
    counts = [len(image.boxes) for image in images]
    return len(counts), sum(counts)
