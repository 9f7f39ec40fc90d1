"""Which detection finds which box: COCO's rules, for all images and thresholds at once.

One pass over the images collects all pairs that overlap. Everything else works on arrays of pairs:
the greedy matching goes round by round, and in round r the r-th best detection of every image and
class chooses. No two of a round can want the same box, so a round is a few array operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .scored import Scored, ranks

IOUS = np.linspace(0.5, 0.95, 10)  # as pycocotools makes them
NONE, IGNORED = -1, -2


@dataclass(frozen=True)
class Pairs:
    """P pairs of a detection and a box of one image that overlap, by detection, then by box.

    Attributes:
        found, box: (P,) int64 positions in :class:`.Scored` and :class:`.Truth`.
        iou: (P,) float64, above 0; of a crowd the share of the detection that lies in it.
    """

    found: np.ndarray
    box: np.ndarray
    iou: np.ndarray

    def where(self, mask: np.ndarray | slice) -> Pairs:
        """Those of a mask, in the order of positions, or of a slice."""
        return Pairs(self.found[mask], self.box[mask], self.iou[mask])

    def best(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """For each of ``count`` detections its highest IoU (0 without any) and that box (-1).

        Of equal ones the first box.
        """
        iou, box = np.zeros(count), np.full(count, NONE, np.int64)
        if len(self.found):
            first = _segments(self.found)
            highest = np.maximum.reduceat(self.iou, first)
            sizes = np.diff(np.r_[first, len(self.found)])
            is_best = self.iou == np.repeat(highest, sizes)
            choice = np.where(is_best, self.box, np.iinfo(np.int64).max)
            rows = self.found[first]
            iou[rows], box[rows] = highest, np.minimum.reduceat(choice, first)
        return iou, box


def overlapping_pairs(scored: Scored) -> Pairs:
    """All pairs of an image whatever their classes, in the arithmetic of pycocotools."""
    truth = scored.truth
    by_image = np.argsort(scored.images, kind="stable")
    boxes_by_image = np.argsort(truth.images, kind="stable")
    every = np.arange(len(truth.image_ids) + 1)
    ends = np.searchsorted(scored.images[by_image], every)
    box_ends = np.searchsorted(truth.images[boxes_by_image], every)
    parts = []
    for image in np.flatnonzero((np.diff(ends) > 0) & (np.diff(box_ends) > 0)).tolist():
        rows = by_image[ends[image] : ends[image + 1]]
        columns = boxes_by_image[box_ends[image] : box_ends[image + 1]]
        iou = _iou(scored.boxes[rows], truth.boxes[columns], truth.crowds[columns])
        d, g = np.nonzero(iou)
        parts.append((rows[d], columns[g], iou[d, g]))
    if not parts:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    found, box, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((box, found))
    return Pairs(found[order], box[order], iou[order])


def _iou(found: np.ndarray, boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """(D, G) of (D, 4) and (G, 4) x, y, width, height."""
    corner, others = found[:, None, :2], boxes[None, :, :2]
    ends, other_ends = found[:, None, 2:] + corner, boxes[None, :, 2:] + others
    sides = np.minimum(ends, other_ends) - np.maximum(corner, others)
    inside = np.where((sides > 0).all(axis=2), sides[..., 0] * sides[..., 1], 0.0)
    area, other_area = (x[:, 2] * x[:, 3] for x in (found, boxes))
    union = area[:, None] + np.where(crowds, 0.0, other_area[None, :] - inside)
    return np.divide(inside, union, out=np.zeros_like(inside), where=inside > 0)


@dataclass(frozen=True)
class Matches:
    """What each detection was matched with, at T IoU thresholds.

    Attributes:
        scored: the detections and boxes. pairs: those that overlap.
        ious: (T,) thresholds.
        box: (T, D) int32, the box found; NONE for a false positive, IGNORED in a crowd.
    """

    scored: Scored
    pairs: Pairs
    ious: np.ndarray
    box: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """(T, D) bool."""
        return self.box >= 0

    @property
    def ignored(self) -> np.ndarray:
        """(T, D) bool, neither right nor wrong."""
        return self.box == IGNORED

    def at(self, iou: float) -> Matches:
        """At one threshold, which must be one of ``ious``."""
        (row,) = np.flatnonzero(np.isclose(self.ious, iou))
        return replace(self, ious=self.ious[row : row + 1], box=self.box[row : row + 1])

    @property
    def is_found(self) -> np.ndarray:
        """(T, G) bool, boxes that a detection was matched with."""
        found = np.zeros((len(self.ious), len(self.scored.truth.classes)), bool)
        rows, columns = np.nonzero(self.hits)
        found[rows, self.box[rows, columns]] = True
        return found

    @property
    def same_class(self) -> Pairs:
        """Pairs of a detection and a regular box of its class."""
        truth, pairs = self.scored.truth, self.pairs
        alike = self.scored.classes[pairs.found] == truth.classes[pairs.box]
        return pairs.where(alike & ~truth.crowds[pairs.box])


def match(scored: Scored, ious: np.ndarray = IOUS, pairs: Pairs | None = None) -> Matches:
    """COCO's greedy matching: the best detections of a class choose first, each the box with the
    highest IoU among those that are free, of equal ones the last.

    A detection without a box of its own that lies in a crowd region of its class, with at least
    the threshold of its own area, is ignored.

    Args:
        ious: (T,) thresholds.
        pairs: as of :func:`overlapping_pairs`, where they are known.
    """
    truth = scored.truth
    pairs = overlapping_pairs(scored) if pairs is None else pairs
    alike = pairs.where(scored.classes[pairs.found] == truth.classes[pairs.box])
    crowd = truth.crowds[alike.box]
    group = scored.classes * len(truth.image_ids) + scored.images
    box = greedy(alike.where(~crowd), group, ious, len(truth.classes))
    in_crowd, _ = alike.where(crowd).best(len(scored))
    box[(box == NONE) & (in_crowd >= _limits(ious))] = IGNORED
    return Matches(scored, pairs, ious, box)


def greedy(pairs: Pairs, group: np.ndarray, ious: np.ndarray, num_boxes: int) -> np.ndarray:
    """(T, D) int32: the box that each detection gets, or NONE.

    Args:
        pairs: who may get what. A box must not occur in pairs of two groups.
        group: (D,) int64, the group of each detection, in which earlier ones choose first.
        ious: (T,) thresholds.
    """
    limits = _limits(ious)
    chosen = np.full((len(ious), len(group)), NONE, np.int32)
    pairs = pairs.where(pairs.iou >= limits.min(initial=1.0))
    if not len(pairs.found):
        return chosen
    first = _segments(pairs.found)
    sizes = np.diff(np.r_[first, len(pairs.found)])
    turn = np.repeat(ranks(group[pairs.found[first]]), sizes)
    order = np.argsort(turn, kind="stable")
    pairs = pairs.where(order)
    ends = np.r_[0, np.cumsum(np.bincount(turn))]
    taken = np.zeros((len(ious), num_boxes), bool)
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        _one_round(pairs.where(slice(start, end)), limits, taken, chosen)
    return chosen


def _one_round(pairs: Pairs, limits: np.ndarray, taken: np.ndarray, chosen: np.ndarray) -> None:
    """One detection of each group takes the best box that is free, the last of equal ones."""
    first = _segments(pairs.found)
    free = (pairs.iou >= limits) & ~taken[:, pairs.box]
    iou = np.where(free, pairs.iou, -1.0)
    highest = np.maximum.reduceat(iou, first, axis=1)
    sizes = np.diff(np.r_[first, len(pairs.found)])
    is_best = free & (iou == np.repeat(highest, sizes, axis=1))
    last = np.maximum.reduceat(np.where(is_best, np.arange(len(pairs.found)), -1), first, axis=1)
    rows, columns = np.nonzero(last >= 0)
    box = pairs.box[last[rows, columns]]
    taken[rows, box] = True
    chosen[rows, pairs.found[first[columns]]] = box


def _limits(ious: np.ndarray) -> np.ndarray:
    """(T, 1) as pycocotools compares: a threshold of 1 is met by an IoU that was rounded down."""
    limits: np.ndarray = np.minimum(ious, 1 - 1e-10)[:, None]
    return limits


def _segments(values: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
