"""Checks of a COCO detection file and its images before time is spent on training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from detectron2.data import detection_utils
from PIL import Image, UnidentifiedImageError

from .datasets import read_coco_file

ImageCheck = Literal["auto", "exists", "header", "decode"]

_HEADERS_AT_MOST = 20_000  # images; "auto" opens no more files than that
_SHOWN = 5  # entries named per fault
_EDGE_TOLERANCE = 1.0  # px; rounding in annotation tools exceeds the border by that much
_TURNED = {5, 6, 7, 8}  # EXIF orientations that swap width and height


@dataclass(frozen=True)
class Fault:
    """One kind of fault: how often it occurs and where first."""

    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = f", ... ({self.count} in all)" if self.count > len(self.examples) else ""
        return f"{self.what}: {', '.join(self.examples)}{more}"


@dataclass
class Report:
    """What :func:`validate_coco` found. `errors` stop a training, `warnings` do not."""

    json_file: str
    image_root: str
    errors: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_images: int = 0
    num_annotations: int = 0
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
            width = max(len(name) for name in self.class_counts)
            lines += [f"  {name:<{width}}  {n:>8}" for name, n in self.class_counts.items()]
        return "\n".join(lines)

    def raise_if_errors(self) -> None:
        """Raises ValueError that names the file and the faulty entries, if there is an error."""
        if self.errors:
            faults = "\n".join(f"  {fault}" for fault in self.errors)
            raise ValueError(f"{self.json_file} cannot be trained on:\n{faults}")

    def error(self, what: str, examples: Iterable[Any]) -> None:
        _add(self.errors, what, examples)

    def warn(self, what: str, examples: Iterable[Any]) -> None:
        _add(self.warnings, what, examples)


def _add(faults: list[Fault], what: str, examples: Iterable[Any]) -> None:
    entries = list(examples)
    if entries:
        shown = tuple(str(e) for e in entries[:_SHOWN])
        faults.append(Fault(what, len(entries), shown))


def validate_coco(
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    *,
    images: ImageCheck = "auto",
) -> Report:
    """Check a COCO file and its images.

    Args:
        images: "exists" looks for the files, "header" also compares their sizes with the file,
            "decode" also reads every pixel; "auto" is "header" for up to 20,000 images, beyond
            that "exists".

    Returns the report; what is wrong with the entries is reported, not raised.

    Raises:
        FileNotFoundError: there is no such annotation file.
        ValueError: it is not JSON, or not an object.
    """
    content = read_coco_file(json_file)
    report = Report(os.fspath(json_file), os.fspath(image_root))
    for key in ("images", "categories"):
        if not isinstance(content.get(key), list) or not content[key]:
            report.error(f"no {key}", [f"'{key}' is missing or empty"])
    if report.errors:
        return report
    _check_categories(report, content["categories"])
    _check_images(report, content["images"])
    if report.errors:  # what follows would only report the same again
        return report
    annotations = content.get("annotations")
    if annotations:
        _check_annotations(report, content["images"], content["categories"], annotations)
    else:
        report.warn("no annotations", ["the file can be used for inference, not for training"])
    report.num_images, report.num_annotations = len(content["images"]), len(annotations or ())
    _check_files(report, content["images"], images)
    return report


def _repeated(values: Sequence[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


def _lacking(entries: list[dict], keys: Sequence[str]) -> list[str]:
    return [
        f"entry {i} lacks {key!r}"
        for i, entry in enumerate(entries)
        for key in keys
        if not isinstance(entry, dict) or key not in entry
    ]


def _check_categories(report: Report, categories: list[dict]) -> None:
    lacking = _lacking(categories, ("id", "name"))
    report.error("incomplete categories", lacking)
    if lacking:
        return
    report.error("category id used twice", _repeated([c["id"] for c in categories]))
    report.error("category name used twice", _repeated([c["name"] for c in categories]))


def _all_positive(*values: Any) -> bool:
    return all(isinstance(v, int | float) and v > 0 for v in values)


def _check_images(report: Report, images: list[dict]) -> None:
    lacking = _lacking(images, ("id", "file_name", "width", "height"))
    report.error("incomplete images", lacking)
    if lacking:
        return
    report.error("image id used twice", _repeated([i["id"] for i in images]))
    report.warn("image file listed twice", _repeated([i["file_name"] for i in images]))
    report.error(
        "image without a positive size",
        [i["file_name"] for i in images if not _all_positive(i["width"], i["height"])],
    )


def _check_annotations(
    report: Report, images: list[dict], categories: list[dict], annotations: list[dict]
) -> None:
    lacking = _lacking(annotations, ("id", "image_id", "category_id", "bbox"))
    report.error("incomplete annotations", lacking)
    if lacking:
        return
    report.error("annotation id used twice", _repeated([a["id"] for a in annotations]))
    report.error(
        "annotation marked 'ignore', which Detectron2 does not support (use iscrowd)",
        [f"annotation {a['id']}" for a in annotations if a.get("ignore")],
    )
    sizes = {i["id"]: (i["width"], i["height"]) for i in images}
    names = {c["id"]: c["name"] for c in categories}
    report.error(
        "unknown image id",
        [
            f"{a['image_id']} in annotation {a['id']}"
            for a in annotations
            if a["image_id"] not in sizes
        ],
    )
    report.error(
        "unknown category id",
        [
            f"{a['category_id']} in annotation {a['id']}"
            for a in annotations
            if a["category_id"] not in names
        ],
    )
    _check_boxes(report, annotations, sizes)
    counts = Counter(a["category_id"] for a in annotations if not a.get("iscrowd", 0))
    report.class_counts = {name: counts[i] for i, name in sorted(names.items())}
    report.warn("class without boxes", [n for n, count in report.class_counts.items() if not count])
    empty = len(sizes.keys() - {a["image_id"] for a in annotations})
    if empty:
        report.notes.append(f"{empty} images without boxes (used as negatives)")


def _check_boxes(
    report: Report, annotations: list[dict], sizes: dict[Any, tuple[float, float]]
) -> None:
    def named(mask: np.ndarray) -> list[str]:
        return [
            f"annotation {annotations[i]['id']} of image {annotations[i]['image_id']} "
            f"{annotations[i]['bbox']}"
            for i in np.flatnonzero(mask).tolist()
        ]

    try:
        boxes = np.array([a["bbox"] for a in annotations])
    except ValueError:  # not all of one length
        boxes = np.empty(0)
    if boxes.shape != (len(annotations), 4) or boxes.dtype.kind not in "iuf":
        malformed = np.array([not _is_box(a["bbox"]) for a in annotations])
        report.error("box that is not four numbers [x, y, width, height]", named(malformed))
        return
    nowhere = (np.nan, np.nan)
    limits = np.array([sizes.get(a["image_id"], nowhere) for a in annotations], dtype=np.float64)
    finite = np.isfinite(boxes).all(axis=1)
    report.error("box with NaN or infinity", named(~finite))
    corner, side = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore"):  # NaN compares as False, which is what is wanted
        negative = finite & (side < 0).any(axis=1)
        zero = finite & ~negative & (side == 0).any(axis=1)
        usable = finite & ~negative & ~zero
        outside = usable & ((corner >= limits) | (corner + side <= 0)).any(axis=1)
        over = (corner < -_EDGE_TOLERANCE) | (corner + side > limits + _EDGE_TOLERANCE)
        partly = usable & ~outside & over.any(axis=1)
    report.error("box of negative width or height", named(negative))
    report.error("box entirely outside its image", named(outside))
    report.warn("box of zero width or height (left out in training)", named(zero))
    report.warn("box partly outside its image (clipped in training)", named(partly))
    if partly.sum() + outside.sum() > 0.2 * len(boxes) and len(boxes) >= 5:
        report.warn("box format", ["many boxes leave their image: are they [x1, y1, x2, y2]?"])


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(x, int | float) and not isinstance(x, bool) for x in box)
    )


def _check_files(report: Report, images: list[dict], check: ImageCheck) -> None:
    paths = [os.path.join(report.image_root, image["file_name"]) for image in images]
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
        try:
            size = _decoded_size(path) if check == "decode" else header_size(path)
        except Exception as error:  # Pillow raises a different type for every kind of damage
            unreadable.append(f"{path} ({_reason(error)})")
            continue
        expected = (image["width"], image["height"])
        if size != expected:
            mismatched.append(f"{path} is {size[0]}x{size[1]}, not {expected[0]}x{expected[1]}")
    report.error("unreadable image", unreadable)
    report.error("image of another size than the file says", mismatched)


def _names_in(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder or "."))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def header_size(path: str) -> tuple[int, int]:
    """(width, height) after the EXIF rotation that reading applies, without decoding."""
    with Image.open(path) as image:
        width, height = image.size
        # Asking a PNG for EXIF data that its header has not would decode the whole picture.
        plain = image.format == "PNG" and "exif" not in image.info
        turned = not plain and image.getexif().get(0x0112) in _TURNED
    return (height, width) if turned else (width, height)


def _decoded_size(path: str) -> tuple[int, int]:
    height, width = detection_utils.read_image(path, format="RGB").shape[:2]
    return width, height


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return f"{type(error).__name__}: {error}"
