"""The images with the most mistakes: hits, misses, duplicates and other false detections drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..data.faults import shown
from ..drawing.canvas import Canvas, Color, display_scale
from ..utils.image_arrays import to_array
from .error_types import KINDS
from .report import Report

_LONGEST_SIDE = 800  # px of a drawn image
HIT, MISS, FALSE, DUPLICATE = (0, 158, 115), (213, 94, 0), (0, 114, 178), (204, 121, 167)
LEGEND = {"hit": HIT, "missed": MISS, "false": FALSE, "duplicate": DUPLICATE}


def drawn_image(report: Report, image: int) -> bytes:
    """The image at position ``image`` with what was made of it, as JPEG.

    Raises:
        OSError, ValueError: the image cannot be read.
    """
    truth = report.truth
    if truth.files is None:
        raise ValueError("the folder of the images is not known (--images)")
    array = to_array(truth.files[image], "RGB")
    shrunk = min(1.0, _LONGEST_SIDE / max(array.shape[:2]))
    if shrunk < 1:
        size = (round(array.shape[1] * shrunk), round(array.shape[0] * shrunk))
        array = np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BILINEAR))
    boxes, texts, colors = _marks(report, image)
    corners = boxes * shrunk
    corners[:, 2:] += corners[:, :2]
    scale = min(display_scale(*array.shape[:2]), max(1, _LONGEST_SIDE // max(array.shape[:2])))
    canvas = Canvas(array, scale=scale)
    for box, color in zip(corners.tolist(), colors, strict=True):
        canvas.box(box, color)
    canvas.labels(corners, range(len(texts)), texts, colors)
    file = io.BytesIO()
    canvas.image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _marks(report: Report, image: int) -> tuple[np.ndarray, list[str], list[Color]]:
    """(N, 4) x, y, width, height, labels and colours; mistakes first, whose labels lie on top."""
    scored, truth, result = report.scored, report.truth, report.outcome
    is_dupe = report.errors.kind == KINDS.index("Dupe")
    wrong = (scored.images == image) & result.kept & ~result.hit
    missed = (truth.images == image) & ~truth.crowds & ~result.found
    found = (scored.images == image) & result.hit
    names = truth.class_names

    def labels(rows: np.ndarray, before: str) -> list[str]:
        return [
            f"{before}{shown(names[k])} {score:.2f}"
            for k, score in zip(scored.classes[rows], scored.scores[rows], strict=True)
        ]

    groups: Sequence[tuple[np.ndarray, list[str], Color]] = (
        (
            truth.boxes[missed],
            [f"missed: {shown(names[k])}" for k in truth.classes[missed]],
            MISS,
        ),
        (scored.boxes[wrong & ~is_dupe], labels(wrong & ~is_dupe, "false: "), FALSE),
        (scored.boxes[wrong & is_dupe], labels(wrong & is_dupe, "duplicate: "), DUPLICATE),
        (scored.boxes[found], labels(found, ""), HIT),
    )
    boxes = np.concatenate([group[0] for group in groups])
    texts = [text for group in groups for text in group[1]]
    return boxes, texts, [group[2] for group in groups for _ in group[1]]
