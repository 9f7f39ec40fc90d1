"""From candidates to detections in NumPy, for files whose graph leaves that to the user."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..utils.soft_nms import TINY, soft_factors, soft_nms
from .metadata import Metadata


class Found(NamedTuple):
    """Detections of one image, best first.

    Attributes:
        boxes: (D, 4) float32 xyxy in pixels of the image. scores: (D,) float32.
        classes: (D,) int64.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def detections(
    boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int], metadata: Metadata
) -> Found:
    """What the detector's own post-processing gives.

    Args:
        boxes: (L, 4) xyxy pixels of the input. scores: (L, K), 0 where there is no candidate.
        size: (H, W) of the input, px.
        metadata: how duplicates are removed.
    """
    row, number = scores.nonzero()
    group = np.zeros_like(number) if metadata.class_agnostic else number
    soft, competing = metadata.soft_nms, boxes[row]
    if soft is None:  # as HardNMS does it, which computes in float64

        def factors(iou: np.ndarray) -> np.ndarray:
            return np.where(iou > metadata.iou_threshold, 0.0, 1.0)

        competing = competing.astype(np.float64)
    else:

        def factors(iou: np.ndarray) -> np.ndarray:
            return soft_factors(soft["method"], metadata.iou_threshold, soft["sigma"], iou)

    lowest = TINY if soft is None else max(soft["min_score"], TINY)
    kept, kept_scores = soft_nms(
        competing, scores[row, number], group, factors, lowest, metadata.max_detections
    )
    height, width = size
    inside = np.clip(boxes[row[kept]], 0, np.array([width, height] * 2, boxes.dtype))
    solid = (inside[:, 2:] > inside[:, :2]).all(1)
    return Found(inside[solid], kept_scores[solid], number[kept][solid].astype(np.int64))
