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

    Only hits can move the interpolated curve, so the rest is summed up beforehand: a thousand
    resampled data sets are then a matter of seconds.
    """

    def __init__(self, data: Ranked) -> None:
        self._data = data
        self._curves = [
            _Hits(*row, data.starts) for row in zip(data.hits, data.ignored, strict=True)
        ]

    def __call__(self, weights: np.ndarray | None = None) -> np.ndarray:
        """(T, K) from 0 to 1; NaN for classes without boxes.

        Args:
            weights: (N,) how often each image counts; once each by default.
        """
        data, num_classes = self._data, len(self._data.starts) - 1
        weights = np.ones(data.num_images) if weights is None else weights
        positives = np.bincount(data.box_classes, weights[data.box_images], num_classes)
        of_detections = weights[data.images]
        total = np.r_[0.0, np.cumsum(of_detections)]
        result = np.zeros((len(self._curves), num_classes))
        for curve, row in zip(self._curves, result, strict=True):
            curve.areas(of_detections, total, positives, row)
        result[:, positives == 0] = np.nan
        return result


class _Hits:
    """The R hits at one threshold, by class and falling score, and where they stand."""

    def __init__(self, hits: np.ndarray, ignored: np.ndarray, starts: np.ndarray) -> None:
        self._rows = rows = np.flatnonzero(hits)
        self._ignored = np.flatnonzero(ignored)
        num_classes = len(starts) - 1
        self._class = np.searchsorted(starts, rows, "right") - 1
        self._begin = starts[:-1][self._class]  # of each hit's class, among all detections
        self._present, self._first = np.unique(self._class, return_index=True)
        self._of_class = np.searchsorted(self._present, self._class)
        self._ignored_to, self._ignored_since = (
            np.searchsorted(self._ignored, x) for x in (rows, self._begin)
        )
        # The envelope runs over all classes from behind; each class's values lie above those of
        # the classes behind it, so that it begins anew.
        self._lift = 2.0 * (num_classes - 1 - self._class)

    def areas(
        self, weights: np.ndarray, total: np.ndarray, positives: np.ndarray, result: np.ndarray
    ) -> None:
        """Write the average precision of each class that has hits into ``result`` (K,).

        Args:
            weights: (D,) of the detections. total: (D + 1,) their running sums, from 0 on.
            positives: (K,) weights of the boxes to be found.
        """
        if not len(self._rows):
            return
        right = _since(np.cumsum(weights[self._rows]), self._first, self._of_class)
        counted = total[self._rows + 1] - total[self._begin]
        if len(self._ignored):
            lost = np.r_[0.0, np.cumsum(weights[self._ignored])]
            counted -= lost[self._ignored_to] - lost[self._ignored_since]
        # Where all weights so far are 0 there is nothing to divide, and nothing is recalled.
        precision = right / np.maximum(counted, 1e-12)
        recall = right / np.maximum(positives, 1e-12)[self._class]
        envelope = np.maximum.accumulate((precision + self._lift)[::-1])[::-1] - self._lift
        # How many of the 101 recalls have been reached: the nearest one, or the one before it.
        nearest = np.minimum(recall * (len(RECALLS) - 1) + 0.5, len(RECALLS) - 1).astype(np.int64)
        reached = nearest + (recall >= RECALLS[nearest])
        gained = np.diff(reached, prepend=0)
        gained[self._first] = reached[self._first]
        result[self._present] = np.add.reduceat(envelope * gained, self._first) / len(RECALLS)


def _since(sums: np.ndarray, first: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """(R,) running sums that begin anew in each segment, which begin at ``first``."""
    before = np.r_[0.0, sums][first]
    from_here: np.ndarray = sums - before[segment]
    return from_here


def mean_ap(by_class: np.ndarray) -> float:
    """The mean in per cent over thresholds and the classes with boxes; NaN without any."""
    measured = by_class[~np.isnan(by_class)]
    return float(measured.mean() * 100) if measured.size else float("nan")
