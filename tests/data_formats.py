"""The same images and boxes written in each annotation format, as its own programs write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

CLASSES = ["bird", "cat", "dog"]  # sorted, which is the order where a format has none


class Box(NamedTuple):
    """Pixels; corner, width and height."""

    label: str
    x: float
    y: float
    w: float
    h: float


class Picture(NamedTuple):
    name: str
    width: int
    height: int
    boxes: list[Box]


def pictures(count: int = 20, seed: int = 0, classes: list[str] = CLASSES) -> list[Picture]:
    """Images with up to four boxes with fractions each; every seventh has none."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        width, height = (int(side) for side in rng.integers(60, 120, 2))
        boxes = []
        for _ in range(0 if i % 7 == 3 else int(rng.integers(1, 5))):
            x, y = rng.uniform(1, width / 2), rng.uniform(1, height / 2)
            w, h = rng.uniform(5, width - x), rng.uniform(5, height - y)
            label = classes[int(rng.integers(len(classes)))]
            boxes.append(Box(label, *(float(value) for value in (x, y, w, h))))
        made.append(Picture(f"image_{i:03}.png", width, height, boxes))
    return made


def draw(folder: Path, given: list[Picture]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in given:
        Image.new("RGB", (picture.width, picture.height)).save(folder / picture.name)


def write_coco(root: Path, given: list[Picture], classes: list[str] = CLASSES) -> Path:
    """``train/_annotations.coco.json`` and the images beside it, as Roboflow's."""
    draw(root / "train", given)
    ids = {name: i for i, name in enumerate(classes, 1)}
    content: dict[str, Any] = {
        "images": [
            {"id": i, "file_name": p.name, "width": p.width, "height": p.height}
            for i, p in enumerate(given)
        ],
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
        "annotations": [],
    }
    for i, picture in enumerate(given):
        for label, *box in picture.boxes:
            number = len(content["annotations"])
            entry = {"id": number, "image_id": i, "category_id": ids[label], "bbox": box}
            content["annotations"].append(entry)
    (root / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def write_yolo(root: Path, given: list[Picture], classes: list[str] = CLASSES) -> Path:
    """``data.yaml``, ``images/train`` and ``labels/train``, as Ultralytics'."""
    draw(root / "images" / "train", given)
    write_labels(root / "labels" / "train", given, classes)
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(classes))
    (root / "data.yaml").write_text(f"train: images/train\nnames:\n{names}\n", encoding="utf-8")
    return root


def write_labels(folder: Path, given: list[Picture], classes: list[str] = CLASSES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, wide, high, boxes in given:
        lines = [
            f"{classes.index(b.label)} {(b.x + b.w / 2) / wide:.12f} {(b.y + b.h / 2) / high:.12f} "
            f"{b.w / wide:.12f} {b.h / high:.12f}\n"
            for b in boxes
        ]
        (folder / name).with_suffix(".txt").write_text("".join(lines))


def write_voc(root: Path, given: list[Picture]) -> Path:
    """``Annotations`` and ``JPEGImages``; whole pixels counted from 1, the last one included."""
    draw(root / "JPEGImages", given)
    for picture in given:
        write_voc_file(root / "Annotations", picture)
    return root


def write_voc_file(folder: Path, picture: Picture, origin: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"<annotation>\n<filename>{escape(picture.name)}</filename>\n<size>"]
    lines += [f"<width>{picture.width}</width><height>{picture.height}</height></size>"]
    for label, x, y, w, h in map(rounded, picture.boxes):
        corners = {"xmin": x + origin, "ymin": y + origin, "xmax": x + w, "ymax": y + h}
        lines += [f"<object><name>{escape(label)}</name><difficult>0</difficult>", "<bndbox>"]
        lines += [f"<{key}>{value}</{key}>" for key, value in corners.items()]
        lines += ["</bndbox>", "</object>"]
    path = (folder / picture.name).with_suffix(".xml")
    path.write_text("\n".join([*lines, "</annotation>"]), encoding="utf-8")


def rounded(box: Box) -> Box:
    """The box with its corners on whole pixels, as VOC can have it."""
    x, y, x2, y2 = round(box.x), round(box.y), round(box.x + box.w), round(box.y + box.h)
    return Box(box.label, x, y, x2 - x, y2 - y)


def write_createml(root: Path, given: list[Picture]) -> Path:
    """``_annotations.createml.json`` with the images beside it; boxes by their centers."""
    draw(root, given)
    content = []
    for picture in given:
        boxes = [
            {
                "label": b.label,
                "coordinates": {
                    "x": b.x + b.w / 2,
                    "y": b.y + b.h / 2,
                    "width": b.w,
                    "height": b.h,
                },
            }
            for b in picture.boxes
        ]
        content.append({"image": picture.name, "annotations": boxes})
    (root / "_annotations.createml.json").write_text(json.dumps(content))
    return root


def write_labelme(root: Path, given: list[Picture]) -> Path:
    """A JSON file beside each image; a rectangle is two opposite corners in any order."""
    draw(root, given)
    for picture in given:
        shapes = [
            {
                "label": b.label,
                "shape_type": "rectangle",
                "points": [[b.x + b.w, b.y], [b.x, b.y + b.h]],
            }
            for b in picture.boxes
        ]
        content = {
            "version": "5.5.0",
            "shapes": shapes,
            "imagePath": picture.name,
            "imageData": None,
            "imageWidth": picture.width,
            "imageHeight": picture.height,
        }
        (root / picture.name).with_suffix(".json").write_text(json.dumps(content))
    return root


def write_cvat(root: Path, given: list[Picture], classes: list[str] = CLASSES) -> Path:
    """``annotations.xml``, and the images in ``images``."""
    draw(root / "images", given)
    labels = "".join(f"<label><name>{escape(name)}</name></label>" for name in classes)
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    lines = ["<annotations>", "<version>1.1</version>", meta]
    for i, (name, wide, high, boxes) in enumerate(given):
        lines.append(f'<image id="{i}" name={quoteattr(name)} width="{wide}" height="{high}">')
        lines += [
            f'<box label={quoteattr(b.label)} occluded="0" xtl="{b.x}" ytl="{b.y}" '
            f'xbr="{b.x + b.w}" ybr="{b.y + b.h}" z_order="0"></box>'
            for b in boxes
        ]
        lines.append("</image>")
    (root / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]), encoding="utf-8")
    return root


def write_label_studio(root: Path, given: list[Picture]) -> Path:
    """A list of tasks with uploaded images; boxes in per cent of the image."""
    draw(root / "images", given)
    tasks = []
    for i, picture in enumerate(given):
        results = [
            {
                "type": "rectanglelabels",
                "original_width": picture.width,
                "original_height": picture.height,
                "value": {
                    "x": b.x / picture.width * 100,
                    "y": b.y / picture.height * 100,
                    "width": b.w / picture.width * 100,
                    "height": b.h / picture.height * 100,
                    "rotation": 0,
                    "rectanglelabels": [b.label],
                },
            }
            for b in picture.boxes
        ]
        image = f"/data/local-files/?d=images/{picture.name}"
        tasks.append({"id": i, "data": {"image": image}, "annotations": [{"result": results}]})
    (root / "project-1.json").write_text(json.dumps(tasks))
    return root


def write_csv(root: Path, given: list[Picture]) -> Path:
    """``_annotations.csv`` beside the images, as Roboflow's; an empty row for one without boxes."""
    draw(root, given)
    with (root / "_annotations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
        for name, wide, high, boxes in given:
            for b in boxes:
                corners = [b.x, b.y, b.x + b.w, b.y + b.h]
                writer.writerow([name, wide, high, b.label, *map(repr, corners)])
            if not boxes:
                writer.writerow([name, wide, high, "", "", "", "", ""])
    return root


# With fractions of pixels, as in the file of COCO; Pascal VOC has whole ones.
EXACT: dict[str, Callable[[Path, list[Picture]], Path]] = {
    "YOLO": write_yolo,
    "CreateML": write_createml,
    "LabelMe": write_labelme,
    "CVAT": write_cvat,
    "Label Studio": write_label_studio,
    "CSV": write_csv,
}
ALL = {"COCO": write_coco, **EXACT, "Pascal VOC": write_voc}
