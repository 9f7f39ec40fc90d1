"""What an exported file says about itself, and which images its detector expects."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SUFFIXES = (".onnx", ".xml", ".pt2")
KEY = "vfnet_yolof"  # of the metadata in the file
FORMAT = 1  # of the metadata
CHECKSUMS = "crc32"  # entry of the JSON file beside an exported one


class ExportedFileError(ValueError):
    """An exported file that cannot be used; the message names it."""


def is_exported(path: object) -> bool:
    """Whether that is called like an exported detector."""
    return isinstance(path, str | os.PathLike) and Path(path).suffix in SUFFIXES


def file_suffixes(path: Path) -> tuple[str, ...]:
    """Of an exported file and, of OpenVINO's, of that of its weights."""
    return (path.suffix, ".bin") if path.suffix == ".xml" else (path.suffix,)


def noted_checksums(path: Path) -> dict[str, str]:
    """What the JSON file beside an exported one says of the files of its name, if anything.

    By their suffixes, so that files may be renamed together.
    """
    try:
        noted = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))[CHECKSUMS]
        return {str(suffix): str(value) for suffix, value in noted.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # there is none, or it is of something else


def checksums(path: Path) -> dict[str, str]:
    """CRC-32, as 8 hexadecimal digits, of each file that belongs to an exported one, by suffix."""
    files = (path.with_suffix(suffix) for suffix in file_suffixes(path))
    return {file.suffix: f"{_crc32(file):08x}" for file in files if file.is_file()}


def _crc32(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            value = zlib.crc32(chunk, value)
    return value


def require_undamaged(path: Path) -> None:
    """Compare a file with the checksums in the JSON file beside it, if there are any.

    The runtimes notice a file that is cut off, but take any numbers for weights.

    Raises:
        ExportedFileError: the content is another one.
    """
    noted = noted_checksums(path)
    if noted.keys().isdisjoint(file_suffixes(path)):
        return
    for suffix, found in checksums(path).items():
        if noted.get(suffix, found) != found:
            raise ExportedFileError(
                f"{path.with_suffix(suffix)} is damaged, or not the file that was exported: its "
                f"checksum is {found}, and {path.with_suffix('.json')} says {noted[suffix]}. Copy "
                "or export it again; if you changed it yourself, delete the .json"
            )


@dataclass(frozen=True)
class Metadata:
    """What is kept in the file, as JSON.

    Attributes:
        detector: name of its class. version: of this package. format: of the metadata.
        class_names: K strings. category_ids: of the training data, K of them, or None.
        resize: ``{"kind": "none"}``, ``{"kind": "fixed", "height": ..., "width": ...}`` or
            ``{"kind": "shortest_edge", "short_edge_length": ..., "max_size": ...}``, px.
        interpolation: "pil" or "opencv", both bilinear; Pillow's averages where images shrink.
        channel_order: of the input, "RGB" or "BGR".
        pixel_mean, pixel_std: applied inside of the graph.
        divisor: to multiples of which the graph pads, px.
        static_size: (height, width) px if the file takes no other, else None.
        least_side: px that height and width must have at least, or None where any will do.
        nms: "inside" or "outside" of the graph.
        score_thresh, iou_threshold, class_agnostic, max_detections: of the detections.
        soft_nms: ``{"method": ..., "sigma": ..., "min_score": ...}`` of :class:`.SoftNMS`, or None.
        precision: "fp32", "fp16" or "int8", of what is not listed as exact in ``reduced``.
        reduced: of fp16 and int8: ``parts`` of the network with fewer bits and ``exact``, those
            without; of int8 also ``method``, number of ``images`` and ``seed`` of the calibration.
        config: as YAML text, or None. license: of the weights, where known.
        identity: of the detector that the file was made from, by which one that is looked for is
            known: see :func:`vfnet_yolof.export.write.identity`.
    """

    detector: str
    version: str
    class_names: list[str]
    category_ids: list[int] | None
    resize: dict[str, Any]
    interpolation: str
    channel_order: str
    pixel_mean: list[float]
    pixel_std: list[float]
    divisor: int
    static_size: list[int] | None
    nms: str
    score_thresh: float
    iou_threshold: float
    class_agnostic: bool
    max_detections: int
    soft_nms: dict[str, Any] | None = None
    precision: str = "fp32"
    reduced: dict[str, Any] | None = None
    config: str | None = None
    license: str | None = None
    identity: str | None = None
    least_side: int | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """The text that :meth:`from_json` reads."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | None, path: str | os.PathLike[str]) -> Metadata:
        """Read the metadata of the file ``path``.

        Raises:
            ExportedFileError: there are none, or of a later release.
        """
        if not text:
            raise ExportedFileError(
                f"{path} was not made by `vfnet-yolof export`: it has no entry {KEY!r} that tells "
                "class names and how images are resized"
            )
        try:
            entries = json.loads(text)
            number = entries["format"]
            entries.pop(CHECKSUMS, None)  # of the JSON file alone
            if number == FORMAT:
                return cls(**entries)._checked(path)
        except ExportedFileError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ExportedFileError(f"{path}: its entry {KEY!r} is damaged: {error}") from error
        raise ExportedFileError(
            f"{path} has metadata of format {number}; this release reads {FORMAT}: update "
            "vfnet-yolof, or export it again"
        )

    def _checked(self, path: str | os.PathLike[str]) -> Metadata:
        kind = self.resize.get("kind")
        if kind not in ("none", "fixed", "shortest_edge"):
            raise ExportedFileError(f"{path}: images are resized by {kind!r}, which is not known")
        return self

    def prepared(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 in ``channel_order`` -> (3, H', W') float32 for the graph.

        Raises:
            ExportedFileError: the file does not take the size that this image comes to.
        """
        size = resized(self.resize, *image.shape[:2])
        given = f"an image of {_size(image.shape[:2])} px is resized to {_size(size)}"
        self.require_size(size, given)
        if size != image.shape[:2]:
            image = _resize(image, size, self.interpolation)
        return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)

    def require_size(self, size: Sequence[int], given: str = "") -> None:
        """Refuse what the graph would fail on.

        Args:
            size: (H, W) of its input, px. given: says in the message where that comes from.

        Raises:
            ExportedFileError: the file takes another size only, or larger images.
        """
        given = given or f"this one has {_size(size)} px"
        if self.static_size is not None and list(size) != list(self.static_size):
            raise ExportedFileError(
                f"this file takes images of {_size(self.static_size)} px only, and {given}: export "
                "it without --static, or give images of one shape"
            )
        if self.least_side is not None and min(size) < self.least_side:
            raise ExportedFileError(
                f"this file takes images of at least {self.least_side} px on each side, and "
                f"{given}: give larger images, or export it as ONNX, which takes any size"
            )


def _size(size: Any) -> str:
    return f"{size[0]}x{size[1]}"


def resized(rule: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    """(H, W) that an image gets by a rule as of :class:`Metadata`, at least 1 px each."""
    if rule["kind"] == "none":
        return height, width
    if rule["kind"] == "fixed":
        return rule["height"], rule["width"]
    # As Detectron2's ResizeShortestEdge rounds.
    short, longest = float(rule["short_edge_length"]), rule["max_size"]
    scale = short / min(height, width)
    new = (short, scale * width) if height < width else (scale * height, short)
    if max(new) > longest:
        shrink = longest * 1.0 / max(new)
        new = new[0] * shrink, new[1] * shrink
    return max(1, int(new[0] + 0.5)), max(1, int(new[1] + 0.5))


def _resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    height, width = size
    if interpolation == "opencv":
        try:
            import cv2
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "this file's images are resized by OpenCV, as in training: "
                "pip install opencv-python-headless",
                name="cv2",
            ) from error
        return cv2.resize(np.ascontiguousarray(image), (width, height))
    resampled = Image.fromarray(np.ascontiguousarray(image)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resampled)
