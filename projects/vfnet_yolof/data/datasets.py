"""Finding, registering and loading data sets in COCO format."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import (
    check_metadata_consistency,
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
)
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ..utils.class_names import Classes, differences, order_in
from .annotations import (
    MIN_BOX_SIDE,
    Annotations,
    load_annotations,
    read_annotations,
    read_categories,
)
from .faults import shown
from .records import checked_records
from .shapes import CLASS_NAMES, SHAPES, default_folder, generate_shapes

logger = logging.getLogger(f"detectron2.{__name__}")  # below Detectron2's, to share its handlers

_USER = "user_"  # how names of data from the command line begin


class _Split(NamedTuple):
    """A registered data set of the user's: its name, its file and {category id: class name}."""

    name: str
    json_file: str
    categories: dict[int, str]


class UserDatasets(NamedTuple):
    """Data sets registered from the command line; a name is None where no file was given."""

    train_name: str | None
    val_name: str | None
    class_names: list[str]  # in the order of the contiguous class ids
    num_classes: int


def get_dataset_dicts(
    names: str | Sequence[str], *, filter_empty: bool = False
) -> list[dict[str, Any]]:
    """Records of one or several registered data sets, in Detectron2's format.

    Args:
        names: registered name(s); several are concatenated.
        filter_empty: leave out images without boxes (or with crowd regions only). Off by default:
            they are the negatives that keep false alarms down.

    Raises:
        KeyError: a name that is not registered.
        FileNotFoundError: the annotation file of a data set does not exist.
        ValueError: entries that cannot be used (see :mod:`.annotations`), data sets with different
            classes, or no record is left.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("No data set is named; set dataloader.train.dataset.names.")
    records = [record for name in names for record in dataset_records(name)]
    _log_counts(names, records, filter_empty)
    has_boxes = any("annotations" in record for record in records)
    if filter_empty and has_boxes:
        records = filter_images_with_only_crowd_annotations(records)
    if not records:
        hint = " All images are without boxes: try filter_empty=False." if has_boxes else ""
        raise ValueError(f"Data set(s) {', '.join(names)}: no image is left.{hint}")
    if has_boxes:
        _require_same_classes(names)
        classes = MetadataCatalog.get(names[0]).get("thing_classes")
        if classes and any(record.get("annotations") for record in records):
            print_instances_class_histogram(records, list(classes))
    return records


def count_images(names: str | Sequence[str]) -> int:
    """How many images the registered data set(s) have; what is wrong with them is not looked at.

    Raises:
        KeyError: a name that is not registered.
        FileNotFoundError, ValueError: an annotation file that cannot be read at all.
    """
    count = 0
    for name in [names] if isinstance(names, str) else names:
        require_registered(name)
        json_file = MetadataCatalog.get(name).get("json_file")
        if json_file is None or name in SHAPES:
            count += len(DatasetCatalog.get(name))
        else:
            _require_file(name, json_file)
            count += len(read_annotations(json_file).images)
    return count


def dataset_records(name: str) -> list[dict[str, Any]]:
    """All records of one registered data set, checked.

    A data set that Detectron2 registers as a COCO file is read by :mod:`.annotations`; another
    one's function is called and its records are checked.

    Raises:
        ValueError: something in it cannot be used; the message names the entry.
    """
    annotations = dataset_annotations(name)
    if annotations is None:
        return checked_records(name, DatasetCatalog.get(name))
    return annotations.records(MetadataCatalog.get(name).image_root)


def dataset_annotations(name: str) -> Annotations | None:
    """The annotation file of a registered data set; None if it is not one COCO file.

    Its class names and category ids become the data set's metadata, as Detectron2's loader does it.

    Raises:
        FileNotFoundError: its file does not exist.
        ValueError: as of :func:`.annotations.load_annotations`, or its classes are others than
            those that the data set is registered with.
    """
    require_registered(name)
    metadata = MetadataCatalog.get(name)
    json_file = metadata.get("json_file")
    if json_file is None or metadata.get("evaluator_type", "coco") != "coco":
        return None
    if name in SHAPES:
        generate_shapes(default_folder())
    _require_file(name, json_file)
    annotations = load_annotations(json_file)
    found = {
        "thing_classes": list(annotations.categories.values()),
        "thing_dataset_id_to_contiguous_id": {c: i for i, c in enumerate(annotations.categories)},
    }
    for key, value in found.items():
        known = metadata.get(key)
        if known is not None and (list(known) if key == "thing_classes" else dict(known)) != value:
            raise ValueError(
                f"{json_file}: its categories are {value}, but data set {name!r} is registered "
                f"with {known}."
            )
    metadata.set(**{key: value for key, value in found.items() if metadata.get(key) is None})
    return annotations


def _log_counts(
    names: Sequence[str], records: Sequence[dict[str, Any]], filter_empty: bool
) -> None:
    """The counts that :func:`.validate.validate_coco` gives, of what goes on to training."""
    solid = [
        sum(
            not a.get("iscrowd") and min(_sides(a)) > MIN_BOX_SIDE for a in r.get("annotations", ())
        )
        for r in records
    ]
    empty = solid.count(0)
    fate = "left out by filter_empty=True" if filter_empty else "used as negatives"
    logger.info(
        "%s: %d images, %d boxes in %d images%s",
        ", ".join(names),
        len(records),
        sum(solid),
        len(records) - empty,
        f"; {empty} images without boxes ({fate})" if empty else "",
    )


def _sides(annotation: dict[str, Any]) -> tuple[float, float]:
    x1, y1, x2, y2 = BoxMode.convert(
        tuple(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS
    )
    return x2 - x1, y2 - y1


def _require_same_classes(names: Sequence[str]) -> None:
    for name in names:
        if MetadataCatalog.get(name).get("thing_classes") is None:
            raise ValueError(
                f"Data set {name!r} has no class names: add "
                f"MetadataCatalog.get({name!r}).set(thing_classes=[...]) where it is registered."
            )
    try:
        check_metadata_consistency("thing_classes", names)
    except (AttributeError, ValueError) as error:
        lists = "; ".join(f"{n}: {MetadataCatalog.get(n).get('thing_classes')}" for n in names)
        raise ValueError(
            f"Cannot use data sets with different classes together: {lists}."
        ) from error


def require_registered(name: str) -> None:
    """Check that ``name`` is a registered data set.

    Raises:
        KeyError: it is not; the message has the nearest known names.
    """
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
    _add_to_catalogs(name, json_file, image_root, categories)


def _add_to_catalogs(
    name: str, json_file: str, image_root: str, categories: dict[int, str]
) -> None:
    DatasetCatalog.register(name, partial(dataset_records, name))
    MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        evaluator_type="coco",
        thing_classes=list(categories.values()),
        thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(categories)},
    )


def register_shapes() -> None:
    """Register ``shapes_train`` and ``shapes_val``; drawing waits until one of them is loaded."""
    folder = default_folder()
    for name in SHAPES:
        if name in DatasetCatalog:
            continue
        split = name.removeprefix("shapes_")
        json_file = folder / "annotations" / f"instances_{split}.json"
        categories = {i + 1: class_name for i, class_name in enumerate(CLASS_NAMES)}
        _add_to_catalogs(name, str(json_file), str(folder / split), categories)


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
            category names differ.
    """
    splits: dict[str, _Split] = {}
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
        splits[split] = _Split(name, json_file, categories)
    if not splits:
        raise ValueError(
            "Give --train-json and --train-images, --val-json and --val-images, or all."
        )
    if len(splits) == 2:
        _require_same_categories(splits["train"], splits["val"])
    categories = next(iter(splits.values())).categories
    class_names = list(categories.values())
    _log_mapping(categories)
    train, val = (splits[s].name if s in splits else None for s in ("train", "val"))
    return UserDatasets(train, val, class_names, len(class_names))


def _user_name(split: str, json_file: str, images: str, categories: dict[int, str]) -> str:
    """Name that stands for these files with their present categories, and for nothing else."""
    parts = [os.path.abspath(json_file), os.path.abspath(images), repr(categories)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    stem = os.path.splitext(os.path.basename(json_file))[0]
    return f"{_USER}{split}_{stem}_{digest}"


def dataset_title(name: str) -> str:
    """What readers know a data set by: its file, if the command line named it, else its name."""
    json_file = MetadataCatalog.get(name).get("json_file")
    return str(json_file) if json_file and name.startswith(_USER) else name


def _require_same_categories(train: _Split, val: _Split) -> None:
    """Evaluation goes by the names, so ids and order may differ."""
    ours, theirs = (Classes(list(x.categories.values()), x.json_file) for x in (train, val))
    if order_in(ours.names, theirs.names) is None:
        raise ValueError(
            f"{train.json_file} and {val.json_file} have different categories: "
            f"{differences(ours, theirs)}. Detections are counted by class name: list the same "
            "names in both files, also those that one of them has no box of."
        )


def _log_mapping(categories: dict[int, str]) -> None:
    if list(categories) != list(range(len(categories))):
        pairs = [f"{c} -> {i} ({shown(n)})" for i, (c, n) in enumerate(categories.items())]
        more = f", ... ({len(pairs)} in all)" if len(pairs) > 100 else ""
        logger.info(
            "Category ids of the file -> class ids of the model: %s%s", ", ".join(pairs[:100]), more
        )


def _require_file(name: str, json_file: str) -> None:
    if not PathManager.isfile(json_file):
        root = os.getenv("DETECTRON2_DATASETS", "./datasets (DETECTRON2_DATASETS is not set)")
        raise FileNotFoundError(
            f"Data set {name!r} needs {json_file}, which does not exist. Data sets are looked for "
            f"below {root}: put or link the data there, set DETECTRON2_DATASETS to its parent "
            "folder, choose the built-in shapes_train / shapes_val, or give your own data with "
            "--data PATH."
        )
