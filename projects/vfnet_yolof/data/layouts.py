"""The door for data as people have it: what format lies at a path, and COCO JSON made of it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ..utils.class_names import listed
from ..utils.files import cache_dir
from .faults import shown
from .formats import coco
from .formats.coco import Split
from .formats.common import ANNOTATION_FOLDERS, NO_IMAGE, Images, LabelledImage, images_in
from .formats.recognise import Source, recognised

logger = logging.getLogger(f"detectron2.{__name__}")  # below Detectron2's, to share its handlers


class Splits(NamedTuple):
    """What lies at a path; None for a split that it lacks.

    ``is_named`` is False where it is one set that nothing calls training or validation: it stands
    in ``train``, and for whatever is needed.
    """

    train: Split | None
    val: Split | None
    is_named: bool = True


def open_data(path: str | os.PathLike[str], split: float | None = None) -> Splits:
    """The training and validation data at a path, in whatever known format they are.

    COCO files are used as they lie. Of others, and where ``split`` is given, COCO files are written
    below :func:`~..utils.files.cache_dir`, anew each time, whole or not at all. The log says which
    format was recognised and what was mapped or left out.

    Args:
        path: a folder, or an annotation file.
        split: the share, between 0 and 1, of the one set there that becomes validation data; see
            :func:`.formats.coco.choose_validation`.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: no known format or several ones, no images, an entry that cannot be used (the
            message names file and line or entry), or ``split`` where there is nothing to part.
        FileWriteError: the COCO files cannot be written.
    """
    if not os.fspath(path):  # which would be the working directory
        raise ValueError("--data is empty: name a folder or a file.")
    root = Path(os.path.abspath(path))
    if not root.exists():
        raise FileNotFoundError(f"--data {path}: there is no such file or folder.")
    if split is not None and not 0 < split < 1:
        raise ValueError(f"--split {split:g}: give a share above 0 and below 1.")
    source = recognised(root)
    if source.read is None:
        return _opened_coco(root, source, split)
    base = root if root.is_dir() else root.parent
    images = Images(base.parent if base.name in ANNOTATION_FOLDERS else base)
    labelled = source.read(images)
    sets = _checked(root, labelled.splits, images)
    names = labelled.class_names or sorted(
        {box.label for found in sets.values() for image in found for box in image.boxes}
    )
    _require_names(root, sets, names)
    is_named = "" not in sets or split is not None
    if split is not None:
        sets = _parted(root, sets, split)
    _tell(root, source.format, sets, names)
    for what, where in images.remarks.items():
        if where:
            logger.warning("%s: %d %s; the first: %s", root, len(where), what, shown(where[0]))
    return _written(root, sets, names, split, is_named)


def _checked(
    root: Path, sets: dict[str, list[LabelledImage]], images: Images
) -> dict[str, list[LabelledImage]]:
    """The sets that have images; what an image's name says twice is refused."""
    sets = {split: found for split, found in sets.items() if found}
    if not sets:
        absent = "".join(f" Not there: {where}." for where in images.remarks[NO_IMAGE][:1])
        raise ValueError(f"--data {root}: no training or validation image was found.{absent}")
    _require_all_named(root, sets)
    boxes = [box for found in sets.values() for image in found for box in image.boxes]
    if not boxes:
        left = "".join(f" {len(at)} {what}." for what, at in images.remarks.items() if at)
        raise ValueError(f"--data {root}: no image has a box.{left}")
    if all(box.x + box.width <= 1 and box.y + box.height <= 1 for box in boxes):
        raise ValueError(f"--data {root}: boxes are shares of the image, but should be pixels.")
    for found in sets.values():
        times = Counter(image.path for image in found)
        if twice := [path for path, count in times.items() if count > 1]:
            raise ValueError(f"--data {root}: image {twice[0]} is annotated twice.")
    used = [image.path for found in sets.values() for image in found]
    for path in used:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{shown(str(path))}: its name is not UTF-8; rename it.") from None
    both = [str(path) for path, count in Counter(used).items() if count > 1]
    images.remarks["images for training and for validation at once"] += both
    known = images.left_out.union(used)
    folders = sorted({path.parent for path in used})
    others = [str(p) for folder in folders for p in images_in(folder) if p not in known]
    images.remarks["images that no annotation names, left out"] += others
    return sets


def _require_names(root: Path, sets: dict[str, list[LabelledImage]], names: list[str]) -> None:
    known = set(names)
    if len(known) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"--data {root}: class {shown(twice)!r} is listed twice.")
    for image in (image for found in sets.values() for image in found):
        for box in image.boxes:
            if box.label not in known:
                raise ValueError(
                    f"--data {root}: {image.path} has class {shown(box.label)!r}, which is not "
                    f"among the listed ones: {listed(names)}."
                )


def _parted(
    root: Path, sets: dict[str, list[LabelledImage]], share: float
) -> dict[str, list[LabelledImage]]:
    _require_one_set(root, sets)
    (images,) = sets.values()
    classes = [{box.label for box in image.boxes} for image in images]
    chosen = coco.choose_validation([str(image.path) for image in images], classes, share)
    pairs = list(zip(images, chosen, strict=True))
    return {s: [x for x, is_val in pairs if is_val is (s == "val")] for s in ("train", "val")}


def _require_all_named(root: Path, sets: Collection[str]) -> None:
    if "" in sets and len(sets) > 1:
        raise ValueError(
            f"--data {root}: has annotations of {_names(sets)}, and others of no set; name one."
        )


def _require_one_set(root: Path, sets: Collection[str]) -> None:
    if len(sets) > 1:
        raise ValueError(f"--split: {root} has {_names(sets)} already; leave --split out.")


def _names(sets: Collection[str]) -> str:
    return " and ".join(name for name in ("train", "val") if name in sets)


def _opened_coco(root: Path, source: Source, share: float | None) -> Splits:
    splits = source.coco
    if not splits:
        raise ValueError(f"--data {root}: has a test set only; name its annotation file.")
    _require_all_named(root, splits)
    files = " and ".join(split.json_file for split in splits.values())
    logger.info("%s: COCO JSON, %s", root, files)
    if share is None:
        return Splits(splits.get("train", splits.get("")), splits.get("val"), "" not in splits)
    _require_one_set(root, splits)
    (whole,) = splits.values()
    folder = _cache_folder(root, share)
    for split, content in coco.parted_coco(whole.json_file, share).items():
        coco.write_coco(folder / f"{split}.json", content)
        logger.info("%s: %d images are for %s", root, len(content["images"]), split)
    train, val = (Split(str(folder / f"{s}.json"), whole.images) for s in ("train", "val"))
    return Splits(train, val)


def _tell(root: Path, name: str, sets: dict[str, list[LabelledImage]], names: list[str]) -> None:
    parts = []
    for split, found in sets.items():
        images, boxes = coco.counted(found)
        parts.append(f"{images} images with {boxes} boxes{f' in {split}' if split else ''}")
    classes = f"{len(names)} classes: {listed([shown(name) for name in names])}"
    logger.info("%s: %s, %s; %s", root, name, ", ".join(parts), classes)


def _written(
    root: Path,
    sets: dict[str, list[LabelledImage]],
    names: list[str],
    share: float | None,
    is_named: bool,
) -> Splits:
    """COCO files of the sets, with file names relative to one folder of all images."""
    folder = _cache_folder(root, share)
    parents = {str(image.path.parent) for found in sets.values() for image in found}
    base = root if root.is_dir() else root.parent
    if any(not Path(parent).is_relative_to(base) for parent in parents):
        base = Path(os.path.commonpath(parents))
    written = {}
    for split, found in sets.items():
        path = folder / f"{split or 'train'}.json"
        coco.write_coco(path, coco.to_coco(found, names, base))
        written[split or "train"] = Split(str(path), str(base))
    return Splits(written.get("train"), written.get("val"), is_named)


def _cache_folder(root: Path, share: float | None) -> Path:
    name = re.sub(r"[^\w.-]+", "-", root.name).strip("-.")[:40] or "data"
    digest = hashlib.sha256(f"{root}\n{share}".encode()).hexdigest()[:12]
    return cache_dir() / "data" / f"{name}-{digest}"
