"""Soft non-maximum suppression in NumPy, which needs no PyTorch: see ``layers/soft_nms.py``."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

TINY = np.finfo(np.float32).tiny
_TAKEN = np.float32(-1)


def soft_factors(method: str, iou_threshold: float, sigma: float, iou: np.ndarray) -> np.ndarray:
    """What scores are multiplied by; arguments as of :class:`.SoftNMS`."""
    if method == "linear":
        return np.where(iou >= np.float32(iou_threshold), 1 - iou, np.float32(1))
    return np.exp(iou * iou * np.float32(-1 / sigma))


@dataclass
class _Left:
    """Boxes that may still be kept, class after class, in the order of the input within a class.

    Attributes:
        index: (n,) in the input. coords: (4, n) x1, y1, x2, y2. area, scores: (n,); a score is
            -1 where the box has been kept.
        group: (n,) number of its class among the G classes that are left. first: (G,) where the
            boxes of each class start.
    """

    index: np.ndarray
    coords: np.ndarray
    area: np.ndarray
    scores: np.ndarray
    group: np.ndarray
    first: np.ndarray

    def subset(self, chosen: np.ndarray) -> "_Left":
        """The boxes at positions or of a mask ``chosen``, which must be in order."""
        group = self.group[chosen]
        starts = np.ones(len(group), bool)
        starts[1:] = group[1:] != group[:-1]
        return _Left(
            self.index[chosen],
            self.coords[:, chosen],
            self.area[chosen],
            self.scores[chosen],
            starts.cumsum() - 1,
            starts.nonzero()[0],
        )

    def best(self) -> np.ndarray:
        """(G,) position of the first best score of each class."""
        if len(self.first) == 1:
            return self.scores.argmax(axis=0, keepdims=True)
        highest = np.maximum.reduceat(self.scores, self.first)
        equal = (self.scores == highest[self.group]).nonzero()[0]
        return equal[np.searchsorted(equal, self.first)]

    def iou_with(self, chosen: np.ndarray) -> np.ndarray:
        """(n,) IoU of every box with the one of ``chosen`` (G,) that is of its class."""
        coords, area = self.coords[:, chosen], self.area[chosen]
        if len(chosen) > 1:
            coords, area = coords[:, self.group], area[self.group]
        size = np.minimum(self.coords[2:], coords[2:]) - np.maximum(self.coords[:2], coords[:2])
        np.maximum(size, 0, out=size)
        shared = size[0] * size[1]
        union = self.area + area
        union -= shared
        np.maximum(union, TINY, out=union)  # two boxes without area
        shared /= union
        return shared


def soft_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    factors: Callable[[np.ndarray], np.ndarray],
    min_score: float,
    max_detections: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and scores as of :class:`.SoftNMS`; ``min_score`` > 0.

    Boxes may be float64, in which IoUs are then computed; scores are float32.

    Scores only fall. So as soon as ``max_detections`` boxes have been kept, the lowest of their
    scores is what all others must still reach: nothing below it can be kept any more, nor lower
    the score of anything that can.
    """
    floor = np.float32(min_score)
    left = _Left(
        np.arange(len(boxes)),
        np.ascontiguousarray(boxes.T),
        (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        scores,
        classes,
        np.empty(0, np.int64),
    )
    order = np.argsort(classes, kind="stable")
    left = left.subset(order[scores[order] >= floor])
    kept: list[np.ndarray] = []
    kept_scores: list[np.ndarray] = []
    top = np.empty(0, np.float32)
    while len(left.scores) and max_detections > 0:
        best = left.best()
        values = left.scores[best]
        alive = values >= floor
        kept.append(left.index[best[alive]])
        kept_scores.append(values[alive])
        scores = left.scores * factors(left.iou_with(best))
        left.scores[:] = np.where(left.scores < 0, left.scores, scores)
        left.scores[best] = _TAKEN
        if max_detections < len(boxes):
            top = np.concatenate([top, values[alive]])
            if len(top) >= max_detections:
                top = np.partition(top, -max_detections)[-max_detections:]
                floor = max(floor, top[0])
        open_boxes = left.scores >= floor
        if 5 * np.count_nonzero(open_boxes) <= 4 * len(open_boxes):
            left = left.subset(open_boxes)
    if not kept:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    index, lowered = np.concatenate(kept), np.concatenate(kept_scores)
    order = np.lexsort((index, -lowered))[:max_detections]
    return index[order], lowered[order]
