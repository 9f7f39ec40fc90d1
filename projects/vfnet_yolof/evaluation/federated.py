"""AP of data in which each image was annotated for some classes only, by LVIS's rules.

There an image says which classes it was searched for without a find (``neg_category_ids``) and of
which not every object was marked (``not_exhaustive_category_ids``). A detection of a class that the
image was not searched for is neither right nor wrong, nor is one too many of a class that was not
marked exhaustively (Gupta et al., LVIS, CVPR 2019). ``hotcoco`` computes it.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.coco_reader import read_json_object
from .coco_ap import DetectionArrays, hotcoco_module

_MARK = b'"neg_category_ids"'
MAX_DETS = 300  # of an image, over all classes


def is_federated(json_file: str | os.PathLike[str]) -> bool:
    """Whether images of an annotation file say what they were searched for."""
    path = Path(json_file)
    return path.is_file() and _MARK in path.read_bytes()


def lvis_figures(
    json_file: str | os.PathLike[str],
    detections: DetectionArrays,
    image_ids: Sequence[Any],
    category_ids: Sequence[Any],
) -> dict[str, float]:
    """AP, AP50, AP75, by size (s, m, l) and by frequency of classes (r, c, f), in per cent.

    NaN where there is nothing to measure. The best 300 detections of an image count.

    Args:
        detections: images and classes by position in ``image_ids`` and ``category_ids``.

    Raises:
        ModuleNotFoundError: ``hotcoco`` is not installed, see :func:`.can_use_hotcoco`.
        ValueError: ids that are no whole numbers.
    """
    hotcoco = hotcoco_module()
    if not all(isinstance(x, int) for x in (*image_ids, *category_ids)):
        raise ValueError(f"{os.fspath(json_file)}: LVIS's rules need ids that are whole numbers.")
    rows = np.column_stack(
        [
            np.array(image_ids, np.float64)[detections.images],
            detections.boxes.astype(np.float64),
            detections.scores.astype(np.float64),
            np.array(category_ids, np.float64)[detections.classes],
        ]
    )
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        truth = hotcoco.COCO(read_json_object(json_file))
        found = truth.load_res(rows).cap_detections_per_image(MAX_DETS)
        evaluation = hotcoco.COCOeval(truth, found, "bbox", lvis_style=True)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = evaluation.get_results()
    return {
        name: 100 * float(value) if value >= 0 else float("nan")
        for name, value in figures.items()
        if name.startswith("AP")
    }
