"""Finding, registering and loading data sets in COCO format."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.file_io import PathManager

logger = logging.getLogger(f"detectron2.{__name__}")  # below Detectron2's, to share its handlers


class UserDatasets(NamedTuple):
    """Data sets registered from the command line; a name is None where no file was given."""

    train_name: str | None
    val_name: str | None
    class_names: list[str]  # in the order of the contiguous class ids
    num_classes: int


def get_dataset_dicts(
    names: str | Sequence[str], *, filter_empty: bool = False, check_consistency: bool = True
) -> list[dict[str, Any]]:
    """Records of one or several registered data sets, in Detectron2's format.

    Args:
        names: registered name(s); several are concatenated.
        filter_empty: leave out images without boxes (or with crowd regions only). Off by default:
            they are the negatives that keep false alarms down.
        check_consistency: several data sets must have the same classes.

    Raises:
        KeyError: a name that is not registered.
        FileNotFoundError: the annotation file of a data set does not exist.
        ValueError: no record is left.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("No data set is named; set dataloader.train.dataset.names.")
    for name in names:
        require_registered(name)
        _require_file(name)
    try:
        return get_detection_dataset_dicts(
            names, filter_empty=filter_empty, check_consistency=check_consistency
        )
    except (AssertionError, ValueError) as error:
        reason = str(error) or type(error).__name__
        hint = " All images are without boxes: try filter_empty=False." if filter_empty else ""
        raise ValueError(f"Cannot use data set(s) {', '.join(names)}: {reason}.{hint}") from error


def require_registered(name: str) -> None:
    """Raises KeyError, with the nearest known names, unless `name` is a registered data set."""
    if name in DatasetCatalog:
        return
    known = sorted(DatasetCatalog.list())
    near = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise KeyError(
        f"Data set {name!r} is not registered.{hint} Known: {', '.join(known)}. "
        "For data of your own use --train-json, --train-images, --val-json and --val-images."
    )


def dataset_class_names(name: str) -> list[str]:
    """Class names of a registered data set, by contiguous id; loads it if needed. [] if unknown."""
    require_registered(name)
    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is None:
        get_dataset_dicts(name)
    return list(metadata.get("thing_classes") or [])


def read_categories(json_file: str | os.PathLike[str]) -> dict[int, str]:
    """{category id: name} of a COCO file, sorted by id as Detectron2 numbers them.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    content = read_coco_file(json_file)
    categories = content.get("categories")
    if not isinstance(categories, list) or not categories:
        raise ValueError(f"{json_file}: no 'categories'; this is not a COCO detection file.")
    try:
        names = {int(c["id"]): str(c["name"]) for c in categories}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{json_file}: a category lacks 'id' or 'name' ({error!r}).") from error
    if len(names) != len(categories):
        raise ValueError(f"{json_file}: category ids are not unique.")
    return dict(sorted(names.items()))


def read_coco_file(json_file: str | os.PathLike[str]) -> dict[str, Any]:
    """Parsed JSON object of a file; errors name the file."""
    path = os.fspath(json_file)
    if not PathManager.isfile(path):
        raise FileNotFoundError(f"Annotation file not found: {path}")
    with PathManager.open(path, "r") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object in COCO format, got a list or a value.")
    return content


def register_coco_json(
    name: str, json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]
) -> dict[int, str]:
    """Register a COCO file under `name`; returns its {category id: name}. Again the same is fine.

    Raises:
        FileNotFoundError: the annotation file or the image folder does not exist.
        ValueError: no COCO file, or `name` already stands for other data.
    """
    categories = read_categories(json_file)
    _register(name, os.fspath(json_file), os.fspath(image_root), categories)
    return categories


def _register(name: str, json_file: str, image_root: str, categories: dict[int, str]) -> None:
    if not PathManager.isdir(image_root):
        raise FileNotFoundError(f"Image folder not found: {image_root}")
    if name in DatasetCatalog:
        metadata = MetadataCatalog.get(name)
        known = (metadata.get("json_file"), metadata.get("image_root"))
        if known != (json_file, image_root):
            raise ValueError(
                f"Data set name {name!r} is taken by {known[0]} with images in {known[1]}; "
                "choose another name."
            )
        return
    metadata = {
        "thing_classes": list(categories.values()),
        "thing_dataset_id_to_contiguous_id": {c: i for i, c in enumerate(categories)},
    }
    register_coco_instances(name, metadata, json_file, image_root)


def register_user_datasets(
    train_json: str | None,
    train_images: str | None,
    val_json: str | None,
    val_images: str | None,
) -> UserDatasets:
    """Register data given on the command line. Either pair may be None.

    The names derive from the files, so that calling again with the same files is harmless.

    Raises:
        FileNotFoundError, ValueError: missing or wrong files, half a pair, or splits whose
            categories differ.
    """
    splits: dict[str, tuple[str, dict[int, str]]] = {}
    for split, json_file, images in (
        ("train", train_json, train_images),
        ("val", val_json, val_images),
    ):
        if json_file is None and images is None:
            continue
        if json_file is None or images is None:
            missing = "json" if json_file is None else "images"
            raise ValueError(
                f"--{split}-{missing} is missing: a COCO file and its images go together."
            )
        categories = read_categories(json_file)
        name = _user_name(split, json_file, images, categories)
        _register(name, json_file, images, categories)
        splits[split] = (name, categories)
    if not splits:
        raise ValueError(
            "Give --train-json and --train-images, --val-json and --val-images, or all."
        )
    if len(splits) == 2:
        _require_same_categories(splits["train"][1], splits["val"][1], train_json, val_json)
    _, categories = next(iter(splits.values()))
    class_names = list(categories.values())
    _log_mapping(categories)
    train, val = (splits[s][0] if s in splits else None for s in ("train", "val"))
    return UserDatasets(train, val, class_names, len(class_names))


def _user_name(split: str, json_file: str, images: str, categories: dict[int, str]) -> str:
    """Name that stands for these files with their present categories, and for nothing else."""
    parts = [os.path.abspath(json_file), os.path.abspath(images), repr(categories)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    stem = os.path.splitext(os.path.basename(json_file))[0]
    return f"user_{split}_{stem}_{digest}"


def _require_same_categories(
    train: dict[int, str], val: dict[int, str], train_json: str, val_json: str
) -> None:
    if train == val:
        return
    differences = [
        f"id {i}: {train.get(i, 'absent')!r} in train, {val.get(i, 'absent')!r} in val"
        for i in sorted(train.keys() | val.keys())
        if train.get(i) != val.get(i)
    ]
    shown = "; ".join(differences[:10]) + ("; ..." if len(differences) > 10 else "")
    raise ValueError(f"{train_json} and {val_json} have different categories: {shown}.")


def _log_mapping(categories: dict[int, str]) -> None:
    if list(categories) != list(range(len(categories))):
        shown = ", ".join(f"{c} -> {i} ({n})" for i, (c, n) in enumerate(categories.items()))
        logger.info("Category ids of the file -> class ids of the model: %s", shown)


def _require_file(name: str) -> None:
    """FileNotFoundError that says what to do. The shapes draw themselves when loaded."""
    json_file = MetadataCatalog.get(name).get("json_file")
    if name in ("shapes_train", "shapes_val") or json_file is None:
        return
    if not PathManager.isfile(json_file):
        root = os.getenv("DETECTRON2_DATASETS", "./datasets (DETECTRON2_DATASETS is not set)")
        raise FileNotFoundError(
            f"Data set {name!r} needs {json_file}, which does not exist. Data sets are looked for "
            f"below {root}: put or link the data there, set DETECTRON2_DATASETS to its parent "
            "folder, choose the built-in shapes_train / shapes_val, or give your own files with "
            "--train-json, --train-images, --val-json and --val-images."
        )
