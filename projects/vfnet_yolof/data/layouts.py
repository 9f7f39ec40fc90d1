"""The door for data as people have it: what format lies at a path, and COCO JSON made of it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ..utils.class_names import listed
from ..utils.files import cache_dir
from .coco_reader import read_json
from .faults import Fault, shown
from .formats import coco
from .formats.coco import Split
from .formats.common import (
    ANNOTATION_FOLDERS,
    NO_IMAGE,
    Files,
    Images,
    Labelled,
    LabelledImage,
    annotation_files,
    images_in,
    split_of_name,
)
from .formats.csv_files import is_box_table, read_csv
from .formats.json_files import kind_of, read_createml, read_label_studio, read_labelme
from .formats.xml_files import read_cvat, read_voc, root_tag
from .formats.yolo import find_yolo, read_yolo

logger = logging.getLogger(f"detectron2.{__name__}")  # below Detectron2's, to share its handlers

Reader = Callable[[Files, Images], Labelled]

_KNOWN = (
    *(f"COCO: {layout.name}" for layout in coco.LAYOUTS),
    "YOLO: data.yaml, or images/ and labels/ with classes.txt",
    "Pascal VOC: Annotations/ with JPEGImages/, or xml files beside the images",
    "CVAT's XML for images",
    "JSON of CreateML, LabelMe or Label Studio",
    "CSV whose header has an image, a class and a box",
)


class Splits(NamedTuple):
    """What lies at a path; None for a split that it lacks.

    ``is_named`` is False where it is one set that nothing calls training or validation: it stands
    in ``train``, and for whatever is needed.
    """

    train: Split | None
    val: Split | None
    is_named: bool = True


class _Source(NamedTuple):
    """A format that was recognised: its name, the file that shows it, and how it is read."""

    format: str
    evidence: Path
    read: Callable[[Images], Labelled] | None  # None: COCO, which is used as it lies
    coco: dict[str, Split]  # by split, "" where it has no name; {} if it is another format


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
        FileNotFoundError: there is nothing at the path, or annotations lack their folder of images.
        ValueError: no known format or several ones, an entry that cannot be used (the message names
            file and line or entry), or ``split`` where there is nothing to part.
        FileWriteError: the COCO files cannot be written.
    """
    root = Path(os.path.abspath(path))
    if not root.exists():
        raise FileNotFoundError(f"--data {path}: there is no such file or folder.")
    if split is not None and not 0 < split < 1:
        raise ValueError(f"--split {split:g}: give a share above 0 and below 1.")
    source = _recognised(root)
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
            logger.warning("%s: %s", root, Fault(what, len(where), tuple(where[:2])))
    return _written(root, sets, names, split, is_named)


def _recognised(root: Path) -> _Source:
    """The format at a path.

    Raises:
        ValueError: none, or several.
    """
    if root.is_file():
        found, faults = _of_file(root), list[Exception]()
    else:
        found, faults = _of_folder(root)
    if len(found) == 1:
        return found[0]
    if not found and faults:
        raise faults[0]
    if not found and root.is_file():
        advice = "Unpack it first." if root.suffix in (".zip", ".tar", ".gz") else _ADVICE
        raise ValueError(f"--data {root}: is no annotation file of a known format. {advice}")
    if not found:
        more = " It has images, but nothing that says what is in them." if images_in(root) else ""
        raise ValueError(
            f"--data {root}: has none of the known layouts ({'; '.join(_KNOWN)}).{more} {_ADVICE}"
        )
    kinds = "; ".join(f"{source.format}, by {source.evidence}" for source in found)
    raise ValueError(f"--data {root}: has several layouts ({kinds}). {_ADVICE}")


_ADVICE = (
    "Name the annotation file itself, or COCO files with --train-json, --train-images, --val-json "
    "and --val-images."
)


def _of_file(path: Path) -> list[_Source]:
    suffix, files = path.suffix.lower(), {"": [path]}
    if suffix == ".json":
        kind = kind_of(read_json(path))
        if kind == "labelme":
            raise ValueError(f"--data {path}: is LabelMe's of one image; name its folder.")
        if kind is not None and kind != "coco":
            return [_JSON[kind].source(files)]
        # What is no COCO file either is refused by its reader, which says why.
        return [_Source("COCO JSON", path, None, {"": coco.find_images(path)})]
    if suffix == ".xml":
        tag = root_tag(path)
        if tag == "annotation":
            raise ValueError(f"--data {path}: is Pascal VOC's of one image; name its folder.")
        return [_CVAT.source(files)] if tag == "annotations" else []
    if suffix in (".yaml", ".yml"):
        return [_yolo(path)]
    if suffix == ".csv" and not is_box_table(path):
        raise ValueError(
            f"--data {path}: its header should name an image (filename), a class (class) and a box "
            "(xmin, ymin, xmax, ymax, or x, y, width, height)."
        )
    return [_CSV.source(files)] if suffix == ".csv" else []


def _of_folder(root: Path) -> tuple[list[_Source], list[Exception]]:
    """All formats that a folder shows, and what kept files from showing one."""
    found: list[_Source] = []
    faults: list[Exception] = []
    for layout in coco.layouts_of(root):
        evidence = next(root / f for f, _ in (layout.train, layout.val) if (root / f).is_file())
        found.append(_Source(f"COCO ({layout.name})", evidence, None, coco.splits_of(root, layout)))
    seekers = [_yolo_in, _xml_in, _csv_in]
    if not found:
        seekers.append(_json_in)
    for seek in seekers:
        try:
            found += seek(root)
        except (ValueError, OSError) as error:
            faults.append(error)
    return found, faults


class _Format(NamedTuple):
    """A format, its reader, and whether it has one file for each image, or one for each set."""

    name: str
    read: Reader
    has_file_per_image: bool = False

    def source(self, files: Files) -> _Source:
        if not self.has_file_per_image:
            files = _one_for_each_set(files)
        first = next(iter(files.values()))[0]
        return _Source(self.name, first, lambda images: self.read(files, images), {})


_VOC, _CVAT = _Format("Pascal VOC", read_voc, True), _Format("CVAT", read_cvat)
_CSV = _Format("CSV", read_csv)
_JSON = {
    "createml": _Format("CreateML", read_createml),
    "labelme": _Format("LabelMe", read_labelme, True),
    "label studio": _Format("Label Studio", read_label_studio),
}


def _yolo(path: Path) -> _Source:
    return _Source("YOLO", path, lambda images: read_yolo(path, images), {})


def _yolo_in(root: Path) -> list[_Source]:
    path = find_yolo(root)
    return [] if path is None else [_yolo(path)]


def _xml_in(root: Path) -> list[_Source]:
    files = annotation_files(root, ".xml")
    tags = (root_tag(path) for paths in files.values() for path in paths)
    tag = next((tag for tag in tags if tag in ("annotation", "annotations")), None)
    return [] if tag is None else [(_VOC if tag == "annotation" else _CVAT).source(files)]


def _csv_in(root: Path) -> list[_Source]:
    found = annotation_files(root, ".csv")
    tables = {path for paths in found.values() for path in paths if is_box_table(path)}
    files = _only(found, tables)
    return [_CSV.source(files)] if files else []


def _json_in(root: Path) -> list[_Source]:
    files = annotation_files(root, ".json")
    kinds: dict[Path, str | None] = {}
    for path in (path for paths in files.values() for path in paths):
        kinds[path] = kind_of(read_json(path))
        if kinds[path] == "labelme":  # so are all others, or its reader refuses them
            return [_JSON["labelme"].source(files)]
    found = []
    for kind in sorted({kind for kind in kinds.values() if kind}):
        of_kind = _only(files, {path for path, own in kinds.items() if own == kind})
        if kind != "coco":
            found.append(_JSON[kind].source(of_kind))
            continue
        sets = _one_for_each_set(of_kind)
        splits = {s: coco.find_images(paths[0]) for s, paths in sets.items() if s != "test"}
        found.append(_Source("COCO JSON", next(iter(sets.values()))[0], None, splits))
    return found


def _only(files: Files, wanted: set[Path]) -> Files:
    chosen = {split: [p for p in paths if p in wanted] for split, paths in files.items()}
    return {split: paths for split, paths in chosen.items() if paths}


def _one_for_each_set(files: Files) -> Files:
    """Files of one folder are told apart by their names, ``train.csv`` and ``val.csv``.

    Raises:
        ValueError: several are of the same set.
    """
    sets: Files = {}
    for split, paths in files.items():
        for path in paths:
            own = split or (split_of_name(path.stem) if len(paths) > 1 else "")
            sets.setdefault(own, []).append(path)
    for paths in sets.values():
        if len(paths) > 1:
            raise ValueError(f"--data: {paths[0]} and {paths[1]} may both be meant; name one.")
    return sets


def _checked(
    root: Path, sets: dict[str, list[LabelledImage]], images: Images
) -> dict[str, list[LabelledImage]]:
    """The sets that have images; what an image's name says twice is refused."""
    sets = {split: found for split, found in sets.items() if found}
    if not sets:
        absent = "".join(f" Not there: {where}." for where in images.remarks[NO_IMAGE][:1])
        raise ValueError(f"--data {root}: no training or validation image was found.{absent}")
    if "" in sets and len(sets) > 1:
        raise ValueError(f"--data {root}: some images are of {_names(sets)}, others of no set.")
    boxes = [box for found in sets.values() for image in found for box in image.boxes]
    if not boxes:
        raise ValueError(f"--data {root}: no image has a box.")
    if all(box.x + box.width <= 1 and box.y + box.height <= 1 for box in boxes):
        raise ValueError(f"--data {root}: boxes are shares of the image, but should be pixels.")
    for found in sets.values():
        times = Counter(image.path for image in found)
        if twice := [path for path, count in times.items() if count > 1]:
            raise ValueError(f"--data {root}: image {twice[0]} is annotated twice.")
    used = [image.path for found in sets.values() for image in found]
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
    chosen = coco.choose_validation([image.path.name for image in images], classes, share)
    pairs = list(zip(images, chosen, strict=True))
    return {s: [x for x, is_val in pairs if is_val is (s == "val")] for s in ("train", "val")}


def _require_one_set(root: Path, sets: Iterable[str]) -> None:
    if len(list(sets)) > 1:
        raise ValueError(f"--split: {root} has {_names(sets)} already; leave --split out.")


def _names(sets: Iterable[str]) -> str:
    return " and ".join(name for name in ("train", "val") if name in sets)


def _opened_coco(root: Path, source: _Source, share: float | None) -> Splits:
    splits = source.coco
    if not splits:
        raise ValueError(f"--data {root}: has a test set only; name its annotation file.")
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
