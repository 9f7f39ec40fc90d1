"""CreateML, LabelMe and Label Studio, which all write JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..coco_reader import read_json
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
    label,
    number,
    sized,
    stated_size,
    turned,
)

_LINES = ("point", "points", "line", "linestrip")  # LabelMe's shapes without an extent
_NO_CLASSES = ("__ignore__", "_background_")  # LabelMe's words for what is no object
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # Label Studio's, before an uploaded file's own name

Entries = Callable[[Any, Path, Images], Iterator[LabelledImage]]


def kind_of(content: Any) -> str | None:
    """``"coco"``, ``"createml"``, ``"labelme"``, ``"label studio"``, or None."""
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, dict):
        return None
    keys = first.keys()
    if isinstance(content, dict):
        if "images" in keys and {"annotations", "categories"} & keys:
            return "coco"
        return "labelme" if "shapes" in keys else None
    if "data" in keys and {"annotations", "completions", "predictions"} & keys:
        return "label studio"
    return "createml" if _pick(first, "image", "imagefilename") is not None else None


def read_createml(files: Files, images: Images) -> Labelled:
    """CreateML: a list of images; boxes are center, width and height in pixels.

    Raises:
        ValueError: an entry cannot be used; the message has its number, from 0.
    """
    return _read(files, images, _createml)


def read_labelme(files: Files, images: Images) -> Labelled:
    """LabelMe: a file for each image with shapes that have points in pixels.

    Raises:
        ValueError: a shape cannot be used; the message has its number, from 0.
    """
    return _read(files, images, _labelme)


def read_label_studio(files: Files, images: Images) -> Labelled:
    """Label Studio: a list of tasks; boxes are corner, width and height in per cent of the image.

    Raises:
        ValueError: a task cannot be used, or has several annotations and none of them is marked as
            ground truth.
    """
    return _read(files, images, _label_studio)


def _read(files: Files, images: Images, entries: Entries) -> Labelled:
    return Labelled(
        {
            split: [image for path in paths for image in entries(read_json(path), path, images)]
            for split, paths in files.items()
            if split != "test"
        }
    )


def _createml(content: Any, path: Path, images: Images) -> Iterator[LabelledImage]:
    for i, entry in enumerate(_list(content, str(path), "the file")):
        where = f"{path}, entry {i}"
        entry = _object(entry, where)
        name = label(_pick(entry, "image", "imagefilename"), where, "'image'")
        objects = _list(_pick(entry, "annotations", "annotation"), where, "'annotations'")
        boxes = []
        for j, given in enumerate(objects):
            at = f"{where} ({shown(name)}), annotation {j}"
            given = _object(given, at)
            place = _object(given.get("coordinates"), at)
            x, y, wide, high = (number(place.get(k), at, k) for k in ("x", "y", "width", "height"))
            values = [x - wide / 2, y - high / 2, wide, high]
            boxes.append(sized(label(given.get("label"), at), values, at))
        yield from images.labelled(name, path, where, boxes)


def _labelme(content: Any, path: Path, images: Images) -> Iterator[LabelledImage]:
    where = str(path)
    content = _object(content, where)
    if "shapes" not in content:
        raise ValueError(f"{path}: has no 'shapes', as LabelMe's files have; move it elsewhere.")
    boxes = []
    for i, given in enumerate(_list(content["shapes"], where, "'shapes'")):
        at = f"{path}, shape {i}"
        given = _object(given, at)
        name = label(given.get("label"), at)
        if name in _NO_CLASSES:
            images.remarks[f"shapes labelled {' or '.join(_NO_CLASSES)}, left out"].append(at)
            continue
        kind = given.get("shape_type") or "polygon"
        if kind in _LINES:
            images.remarks[OTHER_SHAPES].append(at)
            continue
        points = [_point(point, at) for point in _list(given.get("points"), at, "'points'")]
        if len(points) < 2:
            raise ValueError(f"{at}: a {shown(kind)} of {len(points)} points has no extent.")
        if kind == "circle":  # its center, and a point on it
            (x, y), radius = points[0], math.dist(*points[:2])
            points = [(x - radius, y - radius), (x + radius, y + radius)]
        elif kind != "rectangle":
            images.remarks[OUTLINES].append(at)
        ignored = given.get("difficult") is True  # X-AnyLabeling's
        if ignored:
            images.remarks[IGNORED].append(at)
        boxes.append(around(name, points)._replace(ignored=ignored))
    size = stated_size(content.get("imageWidth"), content.get("imageHeight"), where)
    name = content.get("imagePath") or path.stem
    yield from images.labelled(str(name), path, where, boxes, size, stem=path.stem)


def _point(given: Any, where: str) -> tuple[float, float]:
    if not isinstance(given, list) or len(given) != 2:
        raise ValueError(f"{where}: a point should be [x, y], not {shown(given)}.")
    return number(given[0], where, "x"), number(given[1], where, "y")


def _label_studio(content: Any, path: Path, images: Images) -> Iterator[LabelledImage]:
    for i, task in enumerate(_list(content, str(path), "the file")):
        where = f"{path}, task {i}"
        task = _object(task, where)
        data = _object(task.get("data"), where)
        source = _pick(data, "image", "img", "image_url", "url")
        if not isinstance(source, str):
            values = [v for v in data.values() if isinstance(v, str)]
            if len(values) != 1:
                raise ValueError(f"{where}: 'data' should name one image, not {shown(data)}.")
            source = values[0]
        annotation = _the_annotation(task, where)
        if annotation is None:
            images.remarks["tasks without an annotation, left out"].append(where)
            continue
        results = _list(annotation.get("result"), where, "'result'")
        boxes, size = _results(results, where, images)
        name = _file_name(source)
        own = _UPLOAD.sub("", name)
        yield from images.labelled(name, path, where, boxes, size, also=own)


def _the_annotation(task: dict[str, Any], where: str) -> dict[str, Any] | None:
    given = _list(_pick(task, "annotations", "completions") or [], where, "'annotations'")
    done = [x for x in (_object(x, where) for x in given) if not x.get("was_cancelled")]
    if len(done) > 1:
        done = [x for x in done if x.get("ground_truth")]
        if len(done) != 1:
            raise ValueError(
                f"{where}: has {len(given)} annotations; mark one of them as ground truth."
            )
    return done[0] if done else None


def _results(
    results: list[Any], where: str, images: Images
) -> tuple[list[Box], tuple[int, int] | None]:
    boxes: list[Box] = []
    size = None
    for i, result in enumerate(results):
        at = f"{where}, result {i}"
        result = _object(result, at)
        kind = str(result.get("type"))  # all but those below are of the whole image, or relations
        if kind in ("rectanglelabels", "polygonlabels"):
            value = _object(result.get("value"), at)
            size = stated_size(result.get("original_width"), result.get("original_height"), at)
        if kind == "rectanglelabels":
            boxes.append(_rectangle(value, size, at, images))
        elif kind == "polygonlabels":
            images.remarks[OUTLINES].append(at)
            wide, high = _known(size, at)
            points = [_point(p, at) for p in _list(value.get("points"), at, "'points'")]
            scaled = [(x / 100 * wide, y / 100 * high) for x, y in points]
            if not scaled:
                raise ValueError(f"{at}: a polygon without points.")
            boxes.append(around(_only_label(value, kind, at), scaled))
        elif kind in ("rectangle", "polygon"):
            raise ValueError(f"{at}: a {kind} without a class; label with RectangleLabels.")
        elif kind.endswith("labels"):
            images.remarks[OTHER_SHAPES].append(at)
    return boxes, size


def _rectangle(
    value: dict[str, Any], size: tuple[int, int] | None, where: str, images: Images
) -> Box:
    wide, high = _known(size, where)
    share = [number(value.get(k), where, k) / 100 for k in ("x", "y", "width", "height")]
    pixels = [share[0] * wide, share[1] * high, share[2] * wide, share[3] * high]
    box = sized(_only_label(value, "rectanglelabels", where), pixels, where)
    degrees = number(value.get("rotation") or 0, where, "rotation")
    if degrees:  # about the corner
        images.remarks[OUTLINES].append(where)
        box = turned(box, degrees, (box.x, box.y))
    return box


def _known(size: tuple[int, int] | None, where: str) -> tuple[int, int]:
    if size is None:
        raise ValueError(f"{where}: original_width and original_height should be there.")
    return size


def _only_label(value: dict[str, Any], key: str, where: str) -> str:
    given = value.get(key)
    if not isinstance(given, list) or len(given) != 1:
        raise ValueError(f"{where}: {key} should be a list of one class, not {shown(given)}.")
    return label(given[0], where)


def _file_name(source: str) -> str:
    """The file of an address, of an upload, or of Label Studio's local files."""
    parts = urlsplit(source)
    local = parse_qs(parts.query).get("d")
    name = local[0] if local else unquote(parts.path)
    if name.startswith("/data/upload/"):
        name = name.rpartition("/")[2]
    return name


def _pick(entry: dict[str, Any], *keys: str) -> Any:
    return next((entry[key] for key in keys if key in entry), None)


def _list(value: Any, where: str, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: {what} should be a list, not {shown(value)}.")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: should be an object, not {shown(value)}.")
    return value
