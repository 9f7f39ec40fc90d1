"""Checks of a COCO detection file and its images before time is spent on training."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..utils.images import ImageReadError, image_size, read_image
from .annotations import Annotations, read_annotations
from .coco_reader import ImageEntry
from .faults import Faults, shown

ImageCheck = Literal["auto", "exists", "header", "decode"]

_HEADERS_AT_MOST = 20_000  # images; "auto" opens no more files than that


@dataclass
class Report(Faults):
    """What :func:`validate_coco` found. `errors` stop a training, `warnings` do not."""

    json_file: str = ""
    image_root: str = ""
    num_images: int = 0
    num_annotations: int = 0
    num_boxes: int = 0  # that training learns: without crowds and boxes without area
    class_counts: dict[str, int] = field(default_factory=dict)  # boxes per class, without crowds

    @property
    def ok(self) -> bool:
        return not self.errors

    def format(self, class_counts: bool = True) -> str:
        """The report as text, one fault per line."""
        lines = [
            f"{self.json_file}: {self.num_images} images, {self.num_annotations} annotations, "
            f"{len(self.class_counts)} classes"
        ]
        lines += [f"  error: {fault}" for fault in self.errors]
        lines += [f"  warning: {fault}" for fault in self.warnings]
        lines += [f"  note: {note}" for note in self.notes]
        if class_counts and self.class_counts:
            names = [shown(name) for name in self.class_counts]
            width = max(map(len, names))
            counts = self.class_counts.values()
            lines += [f"  {name:<{width}}  {n:>8}" for name, n in zip(names, counts, strict=True)]
        return "\n".join(lines)

    def raise_if_errors(self) -> None:
        """Check that there is no error.

        Raises:
            ValueError: there is; the message names the file and the faulty entries.
        """
        self.require_no_errors(f"{self.json_file} cannot be trained on")


def validate_coco(
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    *,
    images: ImageCheck = "auto",
) -> Report:
    """Check a COCO file and its images.

    Args:
        json_file: annotations in COCO's format.
        image_root: folder of the images.
        images: "exists" looks for the files, "header" also compares their sizes with the file,
            "decode" also reads every pixel; "auto" is "header" for up to 20,000 images, beyond
            that "exists".

    Returns:
        The report; whatever is wrong is reported, not raised.
    """
    report = Report(json_file=os.fspath(json_file), image_root=os.fspath(image_root))
    try:
        annotations = read_annotations(json_file)
    except (OSError, ValueError) as error:
        report.error("the file cannot be read", [shown(str(error))])
        return report
    report.errors += annotations.faults.errors
    report.warnings += annotations.faults.warnings
    report.notes += annotations.faults.notes
    report.num_images = len(annotations.images)
    report.num_annotations = len(annotations.boxes)
    if not report.errors:
        _count(report, annotations)
    _check_files(report, annotations.images, images)
    return report


def _count(report: Report, annotations: Annotations) -> None:
    """What reaches training, class by class."""
    names = annotations.categories.values()
    counted = annotations.category[~annotations.crowds]
    counts = np.bincount(counted, minlength=len(annotations.categories)).tolist()
    report.class_counts = dict(zip(names, counts, strict=True))
    report.num_boxes = int(annotations.solid.sum())
    full, empty = annotations.image_counts()
    report.notes.append(f"{report.num_boxes} boxes in {full} images reach training")
    if empty:
        report.notes.append(
            f"{empty} images without boxes (used as negatives, unless filter_empty=True)"
        )


def _check_files(report: Report, images: list[ImageEntry], check: ImageCheck) -> None:
    paths = [os.path.join(report.image_root, image.file_name) for image in images]
    listing = {folder: _names_in(folder) for folder in {os.path.dirname(p) for p in paths}}
    present = [os.path.basename(p) in listing[os.path.dirname(p)] for p in paths]
    report.error(
        "missing image file", [p for p, there in zip(paths, present, strict=True) if not there]
    )
    if check == "auto":
        check = "header" if len(images) <= _HEADERS_AT_MOST else "exists"
        if check == "exists":
            report.notes.append(f"sizes of the {len(images)} image files were not checked")
    if check == "exists":
        return
    unreadable, mismatched = [], []
    for path, image, there in zip(paths, images, present, strict=True):
        if not there:
            continue
        if not os.path.isfile(path):  # a named pipe would be waited for
            unreadable.append(f"{path} (no regular file)")
            continue
        try:
            size = _decoded_size(path) if check == "decode" else image_size(path)
        except (ImageReadError, OSError) as error:
            unreadable.append(f"{path} ({getattr(error, 'reason', error)})")
            continue
        expected = (image.width, image.height)
        if size != expected:
            mismatched.append(f"{path} is {size[0]}x{size[1]}, not {expected[0]}x{expected[1]}")
    report.error("unreadable image", unreadable)
    report.error("image of another size than the file says", mismatched)


def _names_in(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder or "."))
    except OSError:
        return set()


def _decoded_size(path: str) -> tuple[int, int]:
    height, width = read_image(path).shape[:2]
    return width, height
