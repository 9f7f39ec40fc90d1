"""YOLO: a text file for each image, one object a line, and a YAML file or a list of class names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from ...utils.images import ImageReadError, image_size
from ..faults import shown
from .common import (
    OUTLINES,
    Box,
    Images,
    Labelled,
    LabelledImage,
    around,
    images_below,
    is_image,
    number,
    sized,
    split_folders,
)

_TOLERANCE = 0.01  # of the image's side; Ultralytics accepts as much beyond the border
_LISTS = ("classes.txt", "*.names", "_darknet.labels")  # LabelImg's, darknet's, Roboflow's
_SETS = {"train": ("train",), "val": ("val", "valid")}


def find_yolo(root: Path) -> Path | None:
    """The YAML file, the list of classes or the folder ``labels`` that make a folder YOLO data.

    Raises:
        ValueError: several YAML files could be it.
    """
    found = [path for path in sorted(root.glob("*.y*ml")) if _is_data_yaml(path)]
    if len(found) > 1:
        raise ValueError(f"{root} has {found[0].name} and {found[1].name}; name one of them.")
    if found:
        return found[0]
    folders = [root, *split_folders(root).values()]
    labels = [path for folder in folders if (path := folder / "labels").is_dir()]
    if any(path for folder in labels for path in folder.rglob("*.txt")):
        return labels[0]
    for path in (path for folder in folders for name in _LISTS for path in folder.glob(name)):
        if any(image.with_suffix(".txt").is_file() for image in images_below(path.parent)):
            return path
    return None


def read_yolo(found: Path, images: Images) -> Labelled:
    """Train and val of a YAML file, or of the folders ``images`` and ``labels``.

    Args:
        found: of :func:`find_yolo`, or a YAML file. images: of its folder.

    Raises:
        ValueError: a YAML or label file has what cannot be used, or no image has a label file.
    """
    if found.suffix in (".yaml", ".yml"):
        content = _content(found)
        names = _names(content.get("names"), found)
        if content.get("nc", len(names)) != len(names):
            raise ValueError(f"{found}: nc is {_brief(content['nc'])}, but names has {len(names)}.")
        files = _sets_of_yaml(content, found, images)
        with_keypoints = "kpt_shape" in content
    else:
        names = _class_list(images.root)
        files = _sets_of_folders(images.root)
        with_keypoints = False
    reader = _Reader(names, images, with_keypoints)
    return Labelled({split: reader.read(paths) for split, paths in files.items()}, names)


def _is_data_yaml(path: Path) -> bool:
    content = _content(path)
    return "names" in content and bool({"train", "val", "valid", "test"} & content.keys())


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    return content if isinstance(content, dict) else {}


def _names(given: Any, path: Path) -> list[str]:
    """A list, or a mapping from 0, 1, ... to the names."""
    if isinstance(given, dict):
        given = {int(k) if str(k).isdecimal() else k: name for k, name in given.items()}
        if set(given) != set(range(len(given))):
            numbers = shown(list(given))
            raise ValueError(f"{path}: names should be numbered 0, 1, ..., not {numbers}.")
        given = [given[i] for i in range(len(given))]
    if not isinstance(given, list) or not given:
        raise ValueError(f"{path}: names should be a list of class names, not {_brief(given)}.")
    for i, name in enumerate(given):
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise ValueError(f"{path}: name {i} is {_brief(name)}; write a name, in quotes.")
    return [str(name) for name in given]


def _brief(value: Any) -> str:
    """For messages; a list of YAML may hold another one many times over, so it is not spelled."""
    return shown(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _class_list(root: Path) -> list[str]:
    """Names from the list of classes, wherever below the folder it lies."""
    found = next((paths for name in _LISTS if (paths := sorted(root.rglob(name)))), [])
    lists = [path.read_text(encoding="utf-8-sig").rstrip().splitlines() for path in found]
    if not lists:
        raise ValueError(
            f"{root}: YOLO labels without class names; put data.yaml with 'names', or classes.txt "
            "with a name on each line, there."
        )
    names = [name.strip() for name in lists[0]]
    if other := next((p for p, names in zip(found, lists, strict=True) if names != lists[0]), None):
        raise ValueError(f"{found[0]} and {other} list different classes; keep one.")
    return _names(names, found[0])


def _sets_of_yaml(content: dict[str, Any], path: Path, images: Images) -> dict[str, list[Path]]:
    """Image files of each split; the YAML file names folders, lists, or several of them."""
    given = content.get("path") or "."
    base = path.parent / (given if isinstance(given, str) else ".")
    # Data sets are moved, and their yaml file keeps an old path.
    bases = [base, path.parent] if base.is_dir() else [path.parent]
    files: dict[str, list[Path]] = {}
    for split, keys in _SETS.items():
        sources: Any = next((content[key] for key in keys if content.get(key)), [])
        for source in sources if isinstance(sources, list) else [sources]:
            if not isinstance(source, str):
                raise ValueError(f"{path}: {split} is {_brief(source)}, not a folder's name.")
            found = _images_of(source, bases)
            if found is None and (split != "val" or not files):
                raise ValueError(f"{path}: {split} is {shown(source)}, which is not below {base}.")
            if found is None:  # Roboflow names one, whether it exports it or not
                images.remarks["folders for validation that are not there, left out"].append(
                    f"{shown(source)} of {path}"
                )
            files.setdefault(split, []).extend(found or [])
    if not files:
        raise ValueError(f"{path}: names neither train nor val.")
    return files


def _images_of(source: str, bases: list[Path]) -> list[Path] | None:
    """The images of a folder or a list; None where there is neither."""
    # Roboflow writes ../train/images and means a folder beside the yaml file, as Ultralytics reads.
    names = [source, source[3:]] if source.startswith("../") else [source]
    for place in (base / name for name in names for base in bases):
        if place.is_dir():
            return [Path(os.path.normpath(image)) for image in images_below(place)]
        if place.is_file():
            lines = place.read_text(encoding="utf-8-sig").splitlines()
            return [_listed(place.parent, line.strip()) for line in lines if line.strip()]
    return None


def _listed(folder: Path, name: str) -> Path:
    """An image of a list; CVAT writes a folder ``data`` before, which its archive has not."""
    path, other = folder / name, folder / name.removeprefix("data/")
    chosen = other if not path.is_file() and other.is_file() else path
    return Path(os.path.normpath(chosen))


def _sets_of_folders(root: Path) -> dict[str, list[Path]]:
    """images/train, or train/images, or images alone; labels may also lie beside the images."""
    parts = split_folders(root / "images") or split_folders(root)
    parts = {s: f / "images" if (f / "images").is_dir() else f for s, f in parts.items()}
    if not parts:
        parts = {"": root / "images" if (root / "images").is_dir() else root}
    return {split: images_below(folder) for split, folder in parts.items() if split != "test"}


class _Reader:
    """Reads the label files of one data set."""

    def __init__(self, names: list[str], images: Images, with_keypoints: bool) -> None:
        self.names = names
        self.images = images
        self.remarks = images.remarks
        self.with_keypoints = with_keypoints

    def read(self, paths: list[Path]) -> list[LabelledImage]:
        folders = {folder: _label_folder(folder) for folder in {path.parent for path in paths}}
        found, without = [], []
        for path in paths:
            text = folders[path.parent] / f"{path.stem}.txt"
            if not text.is_file():
                without.append(str(path))
                found.append(LabelledImage(path, []))
            elif not path.is_file():
                raise ValueError(f"{path} is listed, but there is no such image.")
            else:
                found.append(self._image(path, text))
        if paths and len(without) == len(paths):
            raise ValueError(
                f"{without[0]}: neither this nor any other image of its set has a label file; "
                f"this one's should be {folders[paths[0].parent] / paths[0].stem}.txt."
            )
        self.remarks["images without a label file, used as images without boxes"] += without
        self._note_label_files_alone(paths, set(folders.values()))
        return found

    def _note_label_files_alone(self, paths: list[Path], folders: set[Path]) -> None:
        stems = {path.stem for path in paths}
        alone = [
            str(text)
            for folder in sorted(folders)
            if not any(is_image(name) for name in os.listdir(folder))  # else texts of all kinds
            for text in sorted(folder.glob("*.txt"))
            if text.stem not in stems and text.name != "classes.txt"
        ]
        self.remarks["label files whose image is not there, left out"] += alone

    def _image(self, path: Path, text: Path) -> LabelledImage:
        try:
            size = image_size(path)
            lines = text.read_text(encoding="utf-8-sig").splitlines()
        except (ImageReadError, UnicodeDecodeError) as error:
            raise ValueError(f"{text}: {error}") from error
        rows = [(f"{text}, line {i}", line.split()) for i, line in enumerate(lines, 1)]
        return LabelledImage(path, [self._box(row, size, at) for at, row in rows if row], size)

    def _box(self, row: list[str], size: tuple[int, int], where: str) -> Box:
        """A line: class and x, y of the center, width, height, or the points of an outline."""
        class_id = number(row[0], where, "the class")
        if not class_id.is_integer() or not 0 <= class_id < len(self.names):
            raise ValueError(
                f"{where}: class {shown(row[0])} is not one of 0 to {len(self.names) - 1}."
            )
        name = self.names[int(class_id)]
        values = [number(text, where, "a coordinate") for text in row[1:]]
        if self.with_keypoints and len(values) > 4:
            self.remarks["objects with keypoints, of which the box is used"].append(where)
            values = values[:4]
        for value in values:
            if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
                raise ValueError(
                    f"{where}: coordinates are shares of the image, from 0 to 1, not {value:g}."
                )
        width, height = size
        if len(values) == 4:
            x, y, w, h = values
            corner = [(x - w / 2) * width, (y - h / 2) * height]
            return sized(name, [*corner, w * width, h * height], where)
        if len(values) < 6 or len(values) % 2:
            raise ValueError(
                f"{where}: {len(values)} numbers after the class; 4 are a box, an even number from "
                "6 on is an outline."
            )
        self.remarks[OUTLINES].append(where)
        points = zip(values[::2], values[1::2], strict=True)
        return around(name, [(x * width, y * height) for x, y in points])


def _label_folder(images: Path) -> Path:
    """With ``labels`` for the last ``images`` of the path; the same where no such folder is."""
    parts = list(images.parts)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            parts[i] = "labels"
            labels = Path(*parts)
            return labels if labels.is_dir() else images
    return images
