"""Images of the user on which the ranges of activations are measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.annotations import load_annotations
from ..runtime import ExportedFileError, Metadata
from ..utils.image_arrays import to_array
from ..utils.images import IMAGE_KINDS, ImageReadError

MAX_IMAGES = 300
SEED = 0
_SUFFIXES = tuple(suffix for kind in IMAGE_KINDS for suffix in kind.suffixes)


class CalibrationError(ValueError):
    """Images that cannot be calibrated on; the message says which and why."""


@dataclass(frozen=True)
class Calibration:
    """Which images are used.

    Attributes:
        files: at most ``MAX_IMAGES``, drawn with ``SEED`` from those that there are.
        available: how many there are. seed: of that draw.
        root: folder of an annotation file's images, None where a folder was named.
        annotated: whether that file has boxes.
    """

    files: list[Path]
    available: int
    root: Path | None = None
    seed: int = SEED
    annotated: bool = False

    @classmethod
    def of(cls, source: str | os.PathLike[str]) -> Calibration:
        """Images of a folder and those below it, or of an annotation file in COCO's format.

        The latter's lie in its own folder, or in ``images`` there.

        Raises:
            CalibrationError: there are none, or one that the annotation file names is missing.
            ValueError: as of :func:`.load_annotations`.
        """
        path = Path(source)
        if path.is_dir():
            files = sorted(x for x in path.rglob("*") if x.suffix.lower() in _SUFFIXES)
            root, annotated = None, False
            if not files:
                raise CalibrationError(f"--calibration: folder {path} has no images.")
        elif not path.exists():
            raise CalibrationError(f"--calibration: there is neither a folder nor a file {path}")
        elif path.suffix.lower() != ".json":
            raise CalibrationError(
                f"--calibration: {path} is neither a folder of images nor an annotation file (JSON)"
            )
        else:
            annotations = load_annotations(path)
            names = [image.file_name for image in annotations.images]
            annotated = len(annotations.boxes) > 0
            if not names:
                raise CalibrationError(f"--calibration: {path} lists no images.")
            root = next(
                (x for x in (path.parent, path.parent / "images") if (x / names[0]).is_file()),
                path.parent,
            )
            files = [root / name for name in names]
            missing = [x for x in files if not x.is_file()]
            if missing:
                raise CalibrationError(
                    f"--calibration: {len(missing)} of {len(files)} images of {path} are missing, "
                    f"the first is {missing[0]}; they are looked for beside the file and in "
                    "images/ there."
                )
        order = np.random.default_rng(SEED).permutation(len(files))[:MAX_IMAGES]
        chosen = [files[i] for i in sorted(order.tolist())]
        return cls(chosen, len(files), root, annotated=annotated)

    def __str__(self) -> str:
        count, drawn = len(self.files), f", drawn with seed {SEED}"
        return f"{count} of {self.available} images{drawn if count < self.available else ''}"

    def prepared(self, metadata: Metadata, limit: int | None = None) -> Iterator[np.ndarray]:
        """The first ``limit`` images, or all, see :func:`prepared`."""
        return (prepared(file, metadata) for file in self.files[:limit])

    def try_out(self, metadata: Metadata) -> None:
        """Read all images, before anything takes long; raises as :func:`prepared`."""
        for _ in self.prepared(metadata):
            pass


def prepared(file: Path, metadata: Metadata) -> np.ndarray:
    """An image as the graph gets it, read and resized as for prediction: (3, H, W) float32.

    Raises:
        CalibrationError: it cannot be read, or has a size that a static file does not take.
    """
    try:
        return metadata.prepared(to_array(file, metadata.channel_order))
    except ImageReadError as error:
        raise CalibrationError(f"--calibration: {error}") from error
    except ExportedFileError as error:
        raise CalibrationError(f"--calibration: {file}: {error}") from error
