"""What format lies at a path: by its files, or by what a file begins with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..coco_reader import read_json
from . import coco
from .common import Files, Images, Labelled, annotation_files, images_in, split_of_name
from .csv_files import is_box_table, read_csv
from .json_files import kind_of, read_createml, read_label_studio, read_labelme
from .xml_files import read_cvat, read_voc, root_tag
from .yolo import find_yolo, read_yolo

Reader = Callable[[Files, Images], Labelled]

_KNOWN = (
    *(f"COCO: {layout.name}" for layout in coco.LAYOUTS),
    "YOLO: data.yaml, or images/ and labels/ with classes.txt",
    "Pascal VOC: Annotations/ with JPEGImages/, or xml files beside the images",
    "CVAT's XML for images",
    "JSON of CreateML, LabelMe or Label Studio",
    "CSV whose header has an image, a class and a box",
)


class Source(NamedTuple):
    """A format that was recognised: its name, the file that shows it, and how it is read."""

    format: str
    evidence: Path
    read: Callable[[Images], Labelled] | None  # None: COCO, which is used as it lies
    coco: dict[str, coco.Split]  # by split, "" where it has no name; {} if it is another format


def recognised(root: Path) -> Source:
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


def _of_file(path: Path) -> list[Source]:
    suffix, files = path.suffix.lower(), {"": [path]}
    if suffix == ".json":
        kind = kind_of(read_json(path))
        if kind == "labelme":
            raise ValueError(f"--data {path}: is LabelMe's of one image; name its folder.")
        if kind is not None and kind != "coco":
            return [_JSON[kind].source(files)]
        # What is no COCO file either is refused by its reader, which says why.
        return [Source("COCO JSON", path, None, {"": coco.find_images(path)})]
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


def _of_folder(root: Path) -> tuple[list[Source], list[Exception]]:
    """All formats that a folder shows, and what kept files from showing one."""
    found: list[Source] = []
    faults: list[Exception] = []
    for layout in coco.layouts_of(root):
        evidence = next(root / f for f, _ in (layout.train, layout.val) if (root / f).is_file())
        found.append(Source(f"COCO ({layout.name})", evidence, None, coco.splits_of(root, layout)))
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

    def source(self, files: Files) -> Source:
        if not self.has_file_per_image:
            files = _one_for_each_set(files)
        first = next(iter(files.values()))[0]
        return Source(self.name, first, lambda images: self.read(files, images), {})


_XML = ("annotation", "annotations")  # what VOC's and CVAT's files begin with
_VOC, _CVAT = _Format("Pascal VOC", read_voc, True), _Format("CVAT", read_cvat)
_CSV = _Format("CSV", read_csv)
_JSON = {
    "createml": _Format("CreateML", read_createml),
    "labelme": _Format("LabelMe", read_labelme, True),
    "label studio": _Format("Label Studio", read_label_studio),
}


def _yolo(path: Path) -> Source:
    return Source("YOLO", path, lambda images: read_yolo(path, images), {})


def _yolo_in(root: Path) -> list[Source]:
    path = find_yolo(root)
    return [] if path is None else [_yolo(path)]


def _xml_in(root: Path) -> list[Source]:
    files = annotation_files(root, ".xml", lambda path: root_tag(path) in _XML)
    tags = {p: root_tag(p) for paths in files.values() for p in paths}
    found = []
    if "annotation" in tags.values():
        found.append(_VOC.source(files))
    if of_cvat := {path for path, tag in tags.items() if tag == "annotations"}:
        found.append(_CVAT.source(_only(files, of_cvat)))
    return found


def _csv_in(root: Path) -> list[Source]:
    found = annotation_files(root, ".csv", is_box_table)
    tables = {path for paths in found.values() for path in paths if is_box_table(path)}
    files = _only(found, tables)
    return [_CSV.source(files)] if files else []


def _json_in(root: Path) -> list[Source]:
    kinds: dict[Path, str | None] = {}

    def kind_at(path: Path) -> str | None:
        if path not in kinds:
            kinds[path] = kind_of(read_json(path))
        return kinds[path]

    files = annotation_files(root, ".json", lambda path: kind_at(path) is not None)
    if "labelme" in kinds.values():  # so are all others there, or its reader refuses them
        return [_JSON["labelme"].source(files)]
    found = []
    for kind in sorted({k for paths in files.values() for p in paths if (k := kind_at(p))}):
        of_kind = _only(files, {path for path, own in kinds.items() if own == kind})
        if kind == "createml" and not any(split_of_name(p.stem) for p in kinds):
            # LabelImg writes a file for each image.
            found.append(_JSON[kind]._replace(has_file_per_image=True).source(of_kind))
            continue
        if kind != "coco":
            found.append(_JSON[kind].source(of_kind))
            continue
        sets = _one_for_each_set(of_kind)
        splits = {s: coco.find_images(paths[0]) for s, paths in sets.items() if s != "test"}
        found.append(Source("COCO JSON", next(iter(sets.values()))[0], None, splits))
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
