"""What a detector does at a score threshold, and what its scores are worth.

Everything here counts the hits of COCO's matching at one IoU threshold. That matching takes
detections in the order of their scores, so leaving out those below a score threshold changes
nothing for the others: one matching serves all thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .matches import NONE, Matches, greedy

GRID = np.linspace(0.0, 1.0, 101)  # score thresholds of the curves
BINS = 10  # of calibration


@dataclass(frozen=True)
class Curve:
    """Precision, recall and F1 of detections at or above each of S scores, the highest first.

    Attributes:
        scores, precision, recall, f1: (S,), S different scores; empty without detections.
        boxes: how many are to be found.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    boxes: int

    @property
    def best(self) -> tuple[float, float, float, float] | None:
        """Score threshold, F1, precision and recall where F1 is highest; None if it is 0."""
        if not len(self.f1) or self.f1.max() == 0:
            return None
        i = int(self.f1.argmax())
        score, f1, precision, recall = (
            float(x[i]) for x in (self.scores, self.f1, self.precision, self.recall)
        )
        return score, f1, precision, recall

    def at(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Precision (NaN where nothing is left), recall and F1 at other score thresholds."""
        last = np.searchsorted(-self.scores, -thresholds, "right") - 1
        none = last < 0
        values = [
            np.where(none, empty, np.r_[x, empty][last])
            for x, empty in ((self.precision, np.nan), (self.recall, 0.0), (self.f1, 0.0))
        ]
        return values[0], values[1], values[2]


def curve(scores: np.ndarray, hits: np.ndarray, boxes: int) -> Curve:
    """Of (D,) detections that count, in any order, for ``boxes`` boxes."""
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(hits[order], dtype=np.float64)
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True][: len(scores)])
    right, total = right[last], last + 1.0
    recall = right / boxes if boxes else np.zeros(len(last))
    f1 = 2 * right / (total + boxes)
    return Curve(scores[last], right / total, recall, f1, boxes)


def class_curves(matches: Matches) -> list[Curve]:
    """A curve for each class, and at the end that of all of them together.

    Args:
        matches: at one IoU threshold.
    """
    scored = matches.scored
    counted, hits = ~matches.ignored[0], matches.hits[0]
    positives = scored.truth.positives
    curves = []
    for k, (start, end) in enumerate(zip(scored.starts[:-1], scored.starts[1:], strict=True)):
        rows = np.arange(start, end)[counted[start:end]]
        curves.append(curve(scored.scores[rows], hits[rows], int(positives[k])))
    everything = curve(scored.scores[counted], hits[counted], int(positives.sum()))
    return [*curves, everything]


@dataclass(frozen=True)
class Outcome:
    """What becomes of detections and boxes at score thresholds.

    Attributes:
        kept: (D,) bool, at or above the threshold and not excused by a crowd.
        hit: (D,) bool, kept and matched with a box of its class.
        found: (G,) bool, boxes that a kept detection found.
        confusion: (K + 1, K + 1) int64: boxes of class i that were detected as class j; the last
            row is background detected as j, the last column boxes that were not detected.
    """

    kept: np.ndarray
    hit: np.ndarray
    found: np.ndarray
    confusion: np.ndarray


def outcome(matches: Matches, thresholds: np.ndarray) -> Outcome:
    """Count hits first; then what is left over is matched across classes, best scores first.

    So the diagonal of the confusion matrix has the hits of all other figures.

    Args:
        matches: at one IoU threshold.
        thresholds: (K,) the score of each class from which a detection counts.
    """
    scored, truth = matches.scored, matches.scored.truth
    k = len(truth.class_names)
    kept = (scored.scores >= thresholds[scored.classes]) & ~matches.ignored[0]
    hit = kept & matches.hits[0]
    found = np.zeros(len(truth.classes), bool)
    found[matches.box[0, hit]] = True
    regular = ~truth.crowds
    other = _across_classes(matches, kept & ~hit, regular & ~found)
    confused = other >= 0
    taken = found.copy()
    taken[other[confused]] = True
    confusion = np.zeros((k + 1, k + 1), np.int64)
    np.fill_diagonal(confusion[:k, :k], np.bincount(truth.classes[found], minlength=k))
    np.add.at(confusion, (truth.classes[other[confused]], scored.classes[confused]), 1)
    confusion[k, :k] = np.bincount(scored.classes[kept & ~hit & ~confused], minlength=k)
    confusion[:k, k] = np.bincount(truth.classes[regular & ~taken], minlength=k)
    return Outcome(kept, hit, found, confusion)


def _across_classes(matches: Matches, found: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(D,) int32, the box of another class that each of the ``found`` detections gets, or NONE."""
    scored = matches.scored
    by_score = np.argsort(-scored.scores, kind="stable")
    place = np.empty(len(scored), np.int64)
    place[by_score] = np.arange(len(scored))
    pairs = matches.pairs.where(found[matches.pairs.found] & boxes[matches.pairs.box])
    pairs = type(pairs)(place[pairs.found], pairs.box, pairs.iou)
    pairs = pairs.where(np.lexsort((pairs.box, pairs.found)))
    chosen = greedy(pairs, scored.images[by_score], matches.ious, len(boxes))[0]
    result = np.full(len(scored), NONE, np.int32)
    result[by_score] = chosen
    return result


@dataclass(frozen=True)
class Calibration:
    """Scores beside what they may claim to be, in B bins of equal width from 0 to 1.

    Attributes:
        counts: (B,) detections. scores: (B,) their mean score; NaN of none, as the following.
        precision: (B,) the share that are hits. ious: (B,) the mean of the IoU with the box of
            the class that they overlap most, 0 without one.
        precision_error, iou_error: expected calibration error: the mean over detections of the
            distance between a bin's mean score and its precision or mean IoU.
        rank_correlation: Spearman's, of score and IoU over all detections; NaN if one is constant.
    """

    counts: np.ndarray
    scores: np.ndarray
    precision: np.ndarray
    ious: np.ndarray
    precision_error: float
    iou_error: float
    rank_correlation: float


def calibration(matches: Matches, bins: int = BINS) -> Calibration:
    """Of all detections that no crowd excuses; ``matches`` at one IoU threshold."""
    rows = ~matches.ignored[0]
    iou = matches.same_class.best(len(rows))[0][rows]
    scores, hits = matches.scored.scores[rows], matches.hits[0][rows]
    number = np.minimum((scores * bins).astype(np.int64), bins - 1)
    counts = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(number, x, bins) / counts for x in (scores, hits, iou)]
    total = max(len(scores), 1)
    errors = [float(np.nansum(counts * np.abs(means[0] - other)) / total) for other in means[1:]]
    correlation = rank_correlation(scores, iou)
    return Calibration(counts, means[0], means[1], means[2], errors[0], errors[1], correlation)


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values; equal ones share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: np.ndarray = (ends - (counts - 1) / 2)[inverse]
    return ranks


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, of (D,) and (D,): Pearson's of their ranks; NaN if one is constant or D < 2."""
    first, second = _mean_ranks(first), _mean_ranks(second)
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


@dataclass(frozen=True)
class ImageCounts:
    """(N,) int64 each, at score thresholds: what each image has of hits and mistakes."""

    boxes: np.ndarray
    hits: np.ndarray
    misses: np.ndarray
    false: np.ndarray

    @property
    def mistakes(self) -> np.ndarray:
        """(N,) boxes that were missed and detections that are wrong."""
        mistakes: np.ndarray = self.misses + self.false
        return mistakes


def image_counts(matches: Matches, result: Outcome) -> ImageCounts:
    """Counts by image."""
    scored, truth = matches.scored, matches.scored.truth
    count = len(truth.image_ids)
    boxes, found = (
        np.bincount(truth.images[mask], minlength=count) for mask in (~truth.crowds, result.found)
    )
    false = np.bincount(scored.images[result.kept & ~result.hit], minlength=count)
    return ImageCounts(boxes, found, boxes - found, false)
