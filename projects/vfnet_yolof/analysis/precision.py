"""Average precision from matches, for images that count once, several times, or not at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .matches import Matches

RECALLS = np.linspace(0.0, 1.0, 101)  # as pycocotools makes them


@dataclass(frozen=True)
class Ranked:
    """D detections by class and falling score, with what became of each at T thresholds.

    Attributes:
        hits, ignored: (T, D) bool.
        images: (D,) int64. starts: (K + 1,) int64, where the detections of each class begin.
        box_images, box_classes: (G,) of the boxes that are to be found.
        num_images: N.
    """

    hits: np.ndarray
    ignored: np.ndarray
    images: np.ndarray
    starts: np.ndarray
    box_images: np.ndarray
    box_classes: np.ndarray
    num_images: int


def ranked(matches: Matches) -> Ranked:
    """What of the matches average precision depends on."""
    scored, truth = matches.scored, matches.scored.truth
    counted = ~truth.crowds
    return Ranked(
        matches.hits,
        matches.ignored,
        scored.images,
        scored.starts,
        truth.images[counted],
        truth.classes[counted],
        len(truth.image_ids),
    )


class AveragePrecision:
    """COCO's average precision as a function of the weights of images.

    Only detections that are right at some threshold can move the interpolated curve, so the rest
    is summed up beforehand: thousands of resampled data sets are then a matter of seconds.
    """

    def __init__(self, data: Ranked) -> None:
        self._data = data
        self._rows = rows = np.flatnonzero(data.hits.any(axis=0))
        num_classes = len(data.starts) - 1
        self._class = np.searchsorted(data.starts, rows, "right") - 1
        self._begin = data.starts[:-1][self._class]  # of each row's class, among all detections
        self._first = np.searchsorted(self._class, np.arange(num_classes))
        self._present = np.flatnonzero(np.bincount(self._class, minlength=num_classes))
        self._hits = data.hits[:, rows].astype(np.float64)
        self._ignored = np.flatnonzero(data.ignored.any(axis=0))
        self._is_ignored = data.ignored[:, self._ignored].astype(np.float64)
        # The envelope runs over all classes from behind; each class's values lie above those of
        # the classes behind it, so that it begins anew.
        self._lift = 2.0 * (num_classes - 1 - self._class)

    def __call__(self, weights: np.ndarray | None = None) -> np.ndarray:
        """(T, K) from 0 to 1; NaN for classes without boxes.

        Args:
            weights: (N,) how often each image counts; once each by default.
        """
        data, k = self._data, len(self._data.starts) - 1
        weights = np.ones(data.num_images) if weights is None else weights
        positives = np.bincount(data.box_classes, weights[data.box_images], k)
        result = np.zeros((len(data.hits), k))
        if len(self._rows):
            self._add_up(result, weights, positives)
        result[:, positives == 0] = np.nan
        return result

    def _add_up(self, result: np.ndarray, weights: np.ndarray, positives: np.ndarray) -> None:
        right = _since(np.cumsum(self._hits * weights[self._images], axis=1), self._class_first)
        counted = self._counted(weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(counted > 0, right / counted, 0.0)
            recall = right / positives[self._class]
        recall = np.nan_to_num(recall, posinf=0.0)
        envelope = np.maximum.accumulate((precision + self._lift)[:, ::-1], axis=1)[:, ::-1]
        # How many of the 101 recalls have been reached: the nearest one, or the one before it.
        nearest = np.rint(np.minimum(recall, 1.0) * (len(RECALLS) - 1)).astype(np.int64)
        reached = nearest + (recall >= RECALLS[nearest])
        gained = np.diff(reached, axis=1, prepend=0)
        starts = self._first[self._present]
        gained[:, starts] = reached[:, starts]
        areas = (envelope - self._lift) * gained
        result[:, self._present] = np.add.reduceat(areas, starts, axis=1) / len(RECALLS)

    @property
    def _images(self) -> np.ndarray:
        images: np.ndarray = self._data.images[self._rows]
        return images

    @property
    def _class_first(self) -> np.ndarray:
        """(R,) where each row's class begins among the rows."""
        first: np.ndarray = self._first[self._class]
        return first

    def _counted(self, weights: np.ndarray) -> np.ndarray:
        """(T, R) weights of the detections of a class down to each row, without ignored ones."""
        images = self._data.images
        total = np.r_[0.0, np.cumsum(weights[images])]
        counted = (total[self._rows + 1] - total[self._begin])[None]
        if not len(self._ignored):
            return np.broadcast_to(counted, self._hits.shape)
        lost = np.cumsum(self._is_ignored * weights[images[self._ignored]], axis=1)
        lost = np.concatenate([np.zeros((len(lost), 1)), lost], axis=1)
        to, since = (np.searchsorted(self._ignored, x) for x in (self._rows + 1, self._begin))
        return counted - (lost[:, to] - lost[:, since])


def _since(sums: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(T, R) running sums that begin anew at ``first`` of each row."""
    before = np.concatenate([np.zeros((len(sums), 1)), sums], axis=1)
    return sums - before[:, first]


def mean_ap(by_class: np.ndarray) -> float:
    """The mean in per cent over thresholds and the classes with boxes; NaN without any."""
    measured = by_class[~np.isnan(by_class)]
    return float(measured.mean() * 100) if measured.size else float("nan")
