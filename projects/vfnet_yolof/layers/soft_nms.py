"""Soft non-maximum suppression: what overlaps a better box loses score instead of going."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_TINY = np.finfo(np.float32).tiny
_TAKEN = np.float32(-1)


class SoftNMS:
    """Greedy soft-NMS (Bodla et al., 2017), for each class by itself unless ``class_agnostic``.

    The best box that is left is kept, the scores of the others are lowered by their IoU with it,
    and so on. It takes place on the host, one step for all classes at once.

    Args:
        method: ``"linear"``: a score is multiplied by 1 - IoU where the IoU is at least
            ``iou_threshold`` (equation 2); ``"gaussian"``: by exp(-IoU^2 / sigma) (equation 3).
        iou_threshold: of the linear method, in [0, 1].
        sigma: of the gaussian method, greater than 0.
        min_score: boxes whose score falls below this are dropped; with 0 those whose score
            becomes 0.
        class_agnostic: let boxes of different classes lower each other's scores.

    Raises:
        ValueError: an unknown method or a value out of its range.
    """

    def __init__(
        self,
        method: str = "linear",
        iou_threshold: float = 0.65,
        sigma: float = 0.5,
        min_score: float = 1e-3,
        class_agnostic: bool = False,
    ) -> None:
        if method not in ("linear", "gaussian"):
            raise ValueError(f"method must be 'linear' or 'gaussian', got {method!r}")
        if not 0.0 <= iou_threshold <= 1.0:
            raise ValueError(f"iou_threshold must lie in [0, 1], got {iou_threshold}")
        if sigma <= 0.0:
            raise ValueError(f"sigma must be greater than 0, got {sigma}")
        if min_score < 0.0:
            raise ValueError(f"min_score must not be negative, got {min_score}")
        self.method = method
        self.iou_threshold = iou_threshold
        self.sigma = sigma
        self.min_score = min_score
        self.class_agnostic = class_agnostic

    @torch.no_grad()
    def __call__(
        self, boxes: Tensor, scores: Tensor, classes: Tensor, max_detections: int
    ) -> tuple[Tensor, Tensor]:
        """Choose the boxes to keep.

        Args:
            boxes: (P, 4) xyxy pixels. scores: (P,). classes: (P,) int64.
            max_detections: how many to keep at most.

        Returns:
            Indices (Q,) of the kept boxes and their lowered scores (Q,), best first; of equal
            ones the first of the input comes first.
        """
        kept, lowered = soft_nms(
            boxes.float().cpu().numpy(),
            scores.float().cpu().numpy(),
            np.zeros(len(classes), np.int64) if self.class_agnostic else classes.cpu().numpy(),
            self._factors,
            max(self.min_score, _TINY),
            max_detections,
        )
        return (
            torch.from_numpy(kept).to(boxes.device),
            torch.from_numpy(lowered).to(scores.device, scores.dtype),
        )

    def _factors(self, iou: np.ndarray) -> np.ndarray:
        """What scores are multiplied by."""
        if self.method == "linear":
            return np.where(iou >= np.float32(self.iou_threshold), 1 - iou, np.float32(1))
        return np.exp(iou * iou * np.float32(-1 / self.sigma))


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
        np.maximum(union, _TINY, out=union)  # two boxes without area
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
    """Indices and scores as of :class:`SoftNMS`; float32 arrays, ``min_score`` > 0.

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
