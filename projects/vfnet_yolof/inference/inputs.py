"""What to detect in: files, folders and patterns, and which images of a data set they are."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from torch import nn

from ..checkpoint import CheckpointMismatchError, find_class_names
from ..data.annotations import load_annotations
from ..data.coco_reader import ImageEntry, read_json_object
from ..utils.class_names import Classes, differences, listed, order_in
from ..utils.images import IMAGE_KINDS

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = tuple(suffix for kind in IMAGE_KINDS for suffix in kind.suffixes)
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
# What images are drawn as; of others, which lose colours or which few programs open, PNGs are made.
_DRAWN_AS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class InputError(ValueError):
    """An input that does not exist or is of no known kind."""


@dataclass(frozen=True)
class Source:
    """An image or video and its output, relative to the output folder."""

    path: Path
    output: Path

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def collect_inputs(inputs: Iterable[str | os.PathLike[str]]) -> list[Source]:
    """Files, folders (with all below them) and patterns, as files with an output path each.

    Raises :class:`InputError` naming an input that does not exist, is empty or of unknown kind.
    """
    sources: list[Source] = []
    taken: set[Path] = set()
    for given in (os.fspath(path) for path in inputs):
        for path, output in _expand(given):
            if _is_video(path):
                output = output.with_suffix(".mp4")
            elif path.suffix.lower() not in _DRAWN_AS:
                output = output.with_suffix(".png")
            unique = output
            number = 2
            while unique in taken:
                unique = output.with_stem(f"{output.stem}_{number}")
                number += 1
            taken.add(unique)
            sources.append(Source(path, unique))
    return sources


class DataSetIds:
    """Ids by which an annotation file in COCO's format knows images and classes.

    Attributes:
        category_ids: of each of the model's classes.
    """

    def __init__(
        self,
        json_file: str | os.PathLike[str],
        sources: Sequence[Source],
        class_names: Sequence[str],
    ) -> None:
        """Find all of ``sources`` and ``class_names`` in the file.

        An image is known by its name and as many of its folders as the file names.

        Raises:
            FileNotFoundError, ValueError: as of :func:`.load_annotations`.
            InputError: an image that the file lacks or has twice, two inputs that are one of its
                images, a video, or other classes.
        """
        annotations = load_annotations(json_file)
        names = list(annotations.categories.values())
        places = order_in(class_names, names)
        if places is None:
            found = differences(Classes(list(class_names), "the model"), Classes(names, "the file"))
            raise InputError(f"{json_file}: has other classes than the model: {found}")
        ids = list(annotations.categories)
        self.category_ids = [ids[place] for place in places]
        self._file = str(json_file)
        self._by_name: dict[str, list[ImageEntry]] = {}
        for entry in annotations.images:
            self._by_name.setdefault(_parts(entry.file_name)[-1], []).append(entry)
        self._entries: dict[Path, ImageEntry] = {}
        taken: dict[int | str, Path] = {}
        for path, entry in ((source.path, self._entry(source)) for source in sources):
            if entry.id in taken:
                raise InputError(
                    f"{taken[entry.id]} and {path} are one image of {json_file}: {entry.id!r}"
                )
            taken[entry.id] = path
            self._entries[path] = entry

    def image_id(self, path: Path, size: tuple[int, int]) -> int | str:
        """Id of an image of ``size`` (height, width) px; ValueError if the file says another."""
        entry = self._entries[path]
        if size != (entry.height, entry.width):
            raise ValueError(
                f"is {size[1]}x{size[0]} px, but {entry.width}x{entry.height} in {self._file}"
            )
        return entry.id

    def _entry(self, source: Source) -> ImageEntry:
        """The one with most folders in common."""
        if source.is_video:
            raise InputError(f"{source.path} is a video, and {self._file} has ids of images")
        parts = _parts(os.path.abspath(source.path))
        fitting: dict[int, list[ImageEntry]] = {}
        for entry in self._by_name.get(parts[-1], []):
            named = _parts(entry.file_name)
            if parts[-len(named) :] == named:
                fitting.setdefault(len(named), []).append(entry)
        found = fitting[max(fitting)] if fitting else []
        if len(found) != 1:
            how = f"{len(found)} images of that name" if found else "no image of that name"
            raise InputError(f"{source.path}: {self._file} has {how}")
        return found[0]


def class_thresholds(
    given: str | os.PathLike[str] | Mapping[str, float], class_names: Sequence[str]
) -> dict[str, float]:
    """{class name: score threshold}, not of all classes maybe.

    Args:
        given: these, or a JSON file that has them as an object or as its ``thresholds``, which is
            how ``vfnet-yolof report`` writes them.
        class_names: those of the model.

    Raises:
        InputError: there is no such file, it holds no thresholds, or names a class that the model
            does not have.
    """
    found: Any = given
    owner = "thresholds"
    if isinstance(given, str | os.PathLike):
        owner = os.fspath(given)
        if not Path(given).is_file():
            raise InputError(f"there is no file {owner} of thresholds")
        content = read_json_object(given)
        found = content.get("thresholds", content)
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{owner}: no thresholds; expected an object {{class name: score}}")
    for name, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise InputError(f"{owner}: {name!r} must have a score from 0 to 1, not {value!r}")
    if unknown := [str(name) for name in found if name not in class_names]:
        raise InputError(
            f"{owner}: the model has no class {listed(unknown)}; it has {listed(class_names)}"
        )
    return {name: float(value) for name, value in found.items()}


def names_of_classes(
    model: nn.Module, checkpoint: Mapping[str, Any], weights: object, dataset: str | None
) -> list[str]:
    """Names of a model's K classes: the checkpoint's, else the data set's, else numbers.

    Args:
        weights: names the checkpoint in messages. dataset: of the configuration's test set.

    Raises:
        CheckpointMismatchError: the checkpoint names another number of classes.
    """
    num_classes = getattr(model, "num_classes", None)
    names = find_class_names(checkpoint)
    if names is not None:
        if num_classes is not None and len(names) != num_classes:
            raise CheckpointMismatchError(
                f"{weights}: names {len(names)} classes, the configuration builds {num_classes}"
            )
        return names
    if dataset in MetadataCatalog.list():
        names = list(MetadataCatalog.get(dataset).get("thing_classes", []))
        if names and num_classes in (None, len(names)):
            logger.warning(
                "%s has no class names: its classes are taken to be those of data set %s, in "
                "that order",
                *(weights, dataset),
            )
            return names
    logger.warning(
        "%s has no class names and data set %s gives no fitting ones: classes are numbered",
        weights,
        dataset,
    )
    return [f"class {i}" for i in range(num_classes or 0)]


def _parts(file_name: str) -> list[str]:
    """Folders and name, whichever way the slashes lean."""
    parts = file_name.replace("\\", "/").split("/")
    return [part for part in parts if part not in ("", ".", "..")] or [file_name]


def _expand(given: str) -> list[tuple[Path, Path]]:
    """(file, output path) of one input."""
    path = Path(given)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if _is_input(p))
        if not found:
            raise InputError(f"folder {given} has no images or videos")
        return [(p, p.relative_to(path)) for p in found]
    if path.is_file():
        if not _is_known(path):
            known = " ".join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
            raise InputError(f"{given} is neither an image nor a video (known are {known})")
        return [(path, Path(path.name))]
    found = sorted(p for p in map(Path, glob.glob(given, recursive=True)) if _is_input(p))
    if not found:
        raise InputError(f"input {given} does not exist")
    return [(p, Path(p.name)) for p in found]


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_input(path: Path) -> bool:
    """A link that leads nowhere is one too, so that it is listed as what cannot be read."""
    return _is_known(path) and (path.is_file() or not path.exists())


def _is_known(path: Path) -> bool:
    return _is_video(path) or path.suffix.lower() in IMAGE_SUFFIXES
