"""Pascal VOC, an XML file for each image, and CVAT's "for images 1.1", one XML file for all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ..faults import shown
from .common import (
    IGNORED,
    OTHER_SHAPES,
    OUTLINES,
    Box,
    Files,
    Images,
    Labelled,
    LabelledImage,
    around,
    between,
    label,
    number,
    split_of_name,
    stated_size,
    turned,
)

_LINE = "line number"  # no attribute of a file can be called so, with a space
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_CVAT_CORNERS = ("xtl", "ytl", "xbr", "ybr")


class _Refused(Exception):
    """What is wrong with a file that is valid XML."""


def root_tag(path: Path) -> str | None:
    """The name of the outermost element, None if the file does not begin as XML does."""
    with path.open("rb") as file:
        found = re.search(rb"<([A-Za-z][\w.-]*)", file.read(4096))
    return found and found.group(1).decode()


def read_xml(path: Path) -> Element:
    """The outermost element; each one has the attribute ``_LINE``.

    No entities are resolved: a file that could declare some is refused.

    Raises:
        ValueError: it is no valid XML, or has a DOCTYPE.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, _LINE: str(parser.CurrentLineNumber)})

    def doctype(*_: object) -> None:
        raise _Refused("a DOCTYPE, which annotations do not need; remove it")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, doctype
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise ValueError(f"{path}, line {error.lineno}: not valid XML: {reason}.") from error
    except (LookupError, ValueError) as error:
        raise ValueError(f"{path}: {error}; save it in UTF-8.") from error
    except _Refused as error:
        raise ValueError(f"{path}, line {parser.CurrentLineNumber}: {error}.") from error
    return builder.close()


def read_voc(files: Files, images: Images) -> Labelled:
    """Pascal VOC; the sets are those of ``ImageSets/Main`` where there are such.

    Coordinates are 1-based and inclusive, as VOC defines them and Detectron2 reads them: a box from
    1 to the width covers the whole image. Programs that count from 0 give themselves away by a
    corner below 1; then all boxes of the data set are taken as they are, and that is said.

    Raises:
        ValueError: a file has what cannot be used.
    """
    paths = [path for split, found in files.items() if split != "test" for path in found]
    roots = {path: read_xml(path) for path in paths}
    objects = {path: list(_voc_objects(path, root, images)) for path, root in roots.items()}
    low = [path for path, boxes in objects.items() for box in boxes if box.x < 1 or box.y < 1]
    if low:
        counted = "boxes with a corner below 1, so all coordinates are taken as counted from 0"
        images.remarks[counted] += map(str, low)
    shift = 0.0 if low else 1.0
    found: dict[Path, list[LabelledImage]] = {}
    for path, root in roots.items():
        size = root.find("size")
        sides = ("width", "height")
        wide, high = (None if size is None else _text(size, side) for side in sides)
        boxes = [
            b._replace(x=b.x - shift, y=b.y - shift, width=b.width + shift, height=b.height + shift)
            for b in objects[path]
        ]
        where = str(path)
        name = _text(root, "filename") or path.stem
        image_size = stated_size(wide, high, where)
        found[path] = list(images.labelled(name, path, where, boxes, image_size, stem=path.stem))
    sets = _voc_sets(images.root, files, images)
    listed = {path for paths in sets.values() for path in paths}
    images.left_out |= {x.path for path in found if path not in listed for x in found[path]}
    return Labelled({split: [x for path in sets[split] for x in found[path]] for split in sets})


def _voc_objects(path: Path, root: Element, images: Images) -> Iterator[Box]:
    """Boxes whose x and y are as the file has them, and whose sides are differences."""
    if root.tag != "annotation":
        raise ValueError(f"{path}: begins with <{root.tag}>, not with <annotation>.")
    for entry in root.findall("object"):
        where = _where(path, entry)
        name, box = label(_text(entry, "name"), where, "<name>"), entry.find("bndbox")
        if box is None:
            raise ValueError(f"{where}: the object has no <bndbox>.")
        at = _where(path, box)
        corners = [number(_text(box, corner), at, f"<{corner}>") for corner in _CORNERS]
        ignored = _text(entry, "difficult") in ("1", "true", "True")
        if ignored:
            images.remarks[IGNORED].append(where)
        yield between(name, corners, at)._replace(ignored=ignored)


def _voc_sets(root: Path, files: Files, images: Images) -> Files:
    """The annotation files of each split."""
    lists = {path.stem: path for path in sorted((root / "ImageSets" / "Main").glob("*.txt"))}
    train = lists.get("train") or lists.get("trainval")
    chosen = {s: p for s, p in (("train", train), ("val", lists.get("val"))) if p is not None}
    if not chosen or "" not in files:
        return {split: found for split, found in files.items() if split != "test"}
    of_stem = {path.stem: path for path in files[""]}
    sets: Files = {}
    for split, path in chosen.items():
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        # CVAT writes names with folder and suffix; others a name, or a name and a flag.
        stems = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]
        sets[split] = []
        for i, line in stems:
            spelled = (line, line.split()[0], Path(line).stem)
            match = next((stem for stem in spelled if stem in of_stem), None)
            if match is None:
                raise ValueError(f"{path}, line {i}: there is no {shown(line)}.xml.")
            sets[split].append(of_stem[match])
    listed = {path for found in sets.values() for path in found}
    unlisted = [str(path) for path in files[""] if path not in listed]
    images.remarks["annotation files of neither train.txt nor val.txt, left out"] += unlisted
    return sets


def read_cvat(files: Files, images: Images) -> Labelled:
    """CVAT; the sets are its files, or the subsets of a project's export.

    Raises:
        ValueError: a file has what cannot be used, or holds a video's tracks.
    """
    splits: dict[str, list[LabelledImage]] = {}
    names: list[str] = []
    for split, (path, *_) in files.items():
        root = read_xml(path)
        if root.find("track") is not None:
            raise ValueError(f"{path}: has tracks of a video; export it as 'CVAT for images 1.1'.")
        names += [name for name in _cvat_labels(root) if name not in names]
        for entry in root.findall("image"):
            where = _where(path, entry)
            subset = split or split_of_name(entry.get("subset", ""))
            size = stated_size(entry.get("width"), entry.get("height"), where)
            boxes = list(_cvat_boxes(path, entry, images))
            name = label(entry.get("name"), where, "the image's name")
            splits.setdefault(subset, []).extend(images.labelled(name, path, where, boxes, size))
    images.left_out |= {image.path for image in splits.pop("test", [])}
    return Labelled(splits, names or None)


def _cvat_labels(root: Element) -> list[str]:
    """Labels in the order of the task; those of a skeleton's points have a parent."""
    meta = root.find("meta")
    found = [] if meta is None else [e for e in meta.iter("label") if e.find("parent") is None]
    return [name for entry in found if (name := _text(entry, "name"))]


def _cvat_boxes(path: Path, image: Element, images: Images) -> Iterator[Box]:
    for entry in image:
        where = _where(path, entry)
        if entry.tag == "box":
            corners = [number(entry.get(c), where, c) for c in _CVAT_CORNERS]
            box = between(label(entry.get("label"), where), corners, where)
            degrees = number(entry.get("rotation", "0"), where, "the rotation")
            if degrees:
                images.remarks[OUTLINES].append(where)
                box = turned(box, degrees, (box.x + box.width / 2, box.y + box.height / 2))
            yield box
        elif entry.tag == "polygon":
            images.remarks[OUTLINES].append(where)
            text = entry.get("points") or ""
            pairs = [pair.split(",") for pair in text.split(";")]
            if any(len(pair) != 2 for pair in pairs):
                raise ValueError(f"{where}: points should be x,y;x,y;..., not {shown(text)!r}.")
            points = [(number(x, where, "x"), number(y, where, "y")) for x, y in pairs]
            yield around(label(entry.get("label"), where), points)
        elif entry.tag != "tag":  # a class of the whole image
            images.remarks[OTHER_SHAPES].append(where)


def _where(path: Path, entry: Element) -> str:
    return f"{path}, line {entry.get(_LINE)}"


def _text(entry: Element, tag: str) -> str | None:
    text = entry.findtext(tag)
    return None if text is None else text.strip()
