"""What kind of mistake each detection is, and what each kind costs: TIDE's error types.

D. Bolya, S. Foley, J. Hays, J. Hoffman: TIDE, a general toolbox for identifying object detection
errors, ECCV 2020. With the IoU thresholds t_f = 0.5 and t_b = 0.1, a detection that is no hit is

* ``Loc``: right class, IoU from t_b to t_f;
* ``Cls``: IoU of at least t_f with a box of another class;
* ``Dupe``: right class and at least t_f, but a better one has the box;
* ``Bkg``: IoU of at most t_b with every box;
* ``Both``: none of these: another class, IoU from t_b to t_f.

A box that is not found and that no ``Loc`` or ``Cls`` detection stands for is ``Miss``. Each kind
costs the AP at t_f that is gained when it alone is put right. ``FP`` and ``FN``: all detections
that are no hits moved behind the hits; all boxes that were not found left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .matches import NONE, Matches
from .precision import AveragePrecision, Ranked, mean_ap, ranked

FOREGROUND, BACKGROUND = 0.5, 0.1
KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
HIT = -1  # in Errors.kind


@dataclass(frozen=True)
class Errors:
    """The kind of each detection and box, and the AP that is lost by it.

    Attributes:
        kind: (D,) int8, position in ``KINDS``; HIT for what is right, also for what a crowd
            excuses.
        missed: (G,) bool.
        ap: at IoU 0.5, in per cent.
        lost: by kind, ``FP`` and ``FN``, in per cent of AP; never below 0, but for ``FN``.
        counts: detections (of ``Miss`` boxes) of each kind.
    """

    kind: np.ndarray
    missed: np.ndarray
    ap: float
    lost: Mapping[str, float]
    counts: Mapping[str, int]


class _Judged:
    """Kinds of all detections, ignored ones too, as TIDE has it, and the box they stand for."""

    def __init__(self, matches: Matches) -> None:
        truth, count = matches.scored.truth, len(matches.scored)
        self.hit, self.ignored = matches.hits[0], matches.ignored[0]
        self.found = matches.is_found[0]
        regular = matches.pairs.where(~truth.crowds[matches.pairs.box])
        alike = matches.scored.classes[regular.found] == truth.classes[regular.box]
        iou, box = regular.where(alike).best(count)
        other_iou, other_box = regular.where(~alike).best(count)
        dupe_iou, _ = regular.where(alike & self.found[regular.box]).best(count)
        any_iou = np.maximum(iou, other_iou)
        conditions = [
            self.hit,
            (iou >= BACKGROUND) & (iou <= FOREGROUND),
            other_iou >= FOREGROUND,
            dupe_iou >= FOREGROUND,
            any_iou <= BACKGROUND,
        ]
        numbers = [HIT, *map(KINDS.index, ("Loc", "Cls", "Dupe", "Bkg"))]
        self.kind = np.select(conditions, numbers, KINDS.index("Both")).astype(np.int8)
        self.box = np.where(self.of("Loc"), box, np.where(self.of("Cls"), other_box, NONE))
        self.box[(self.box >= 0) & self.found[self.box]] = NONE
        self.claims = self._best_claims(matches.scored.scores)
        usable = np.zeros(len(truth.classes), bool)
        usable[self.box[self.box >= 0]] = True
        self.missed = ~truth.crowds & ~self.found & ~usable

    def of(self, kind: str) -> np.ndarray:
        """(D,) bool."""
        is_kind: np.ndarray = self.kind == KINDS.index(kind)
        return is_kind

    def _best_claims(self, scores: np.ndarray) -> np.ndarray:
        """(D,) bool: of the detections that stand for the same box the one with the best score."""
        rows = np.flatnonzero(self.box >= 0)
        rows = rows[np.lexsort((-scores[rows], self.box[rows]))]
        claims = np.zeros(len(scores), bool)
        _, first = np.unique(self.box[rows], return_index=True)
        claims[rows[first]] = True
        return claims


def error_types(matches: Matches) -> Errors:
    """Kinds and costs.

    Classes are those of the ground truth, as in COCO's mean; ``tidecv`` 1.0.1 counts a class that
    is only detected as one with an AP of 0.

    Args:
        matches: among others at an IoU of 0.5.
    """
    matches = matches.at(FOREGROUND)
    judged = _Judged(matches)
    base, known = ranked(matches), matches.scored.truth.positives > 0
    regular = ~matches.scored.truth.crowds
    ap = _mean(base, known)
    changed = {kind: _corrected(matches, judged, base, kind) for kind in KINDS[:-1]}
    changed["Miss"] = _without(base, ~judged.missed[regular])
    lost = {kind: max(_mean(data, known) - ap, 0.0) for kind, data in changed.items()}
    perfect = _with(base, base.hits[0], ~base.hits[0])  # other detections cost nothing behind hits
    lost["FP"] = _mean(perfect, known) - ap
    lost["FN"] = _mean(_without(base, judged.found[regular]), known) - ap
    shown = np.where(judged.ignored, HIT, judged.kind).astype(np.int8)
    counts = {kind: int((shown == number).sum()) for number, kind in enumerate(KINDS)}
    counts["Miss"] = int(judged.missed.sum())
    return Errors(shown, judged.missed, ap, lost, counts)


def _corrected(matches: Matches, judged: _Judged, base: Ranked, kind: str) -> Ranked:
    """The data with one kind of detections put right."""
    wrong = judged.of(kind)
    repaired = wrong & judged.claims  # of Loc and Cls: a hit from now on; all others go
    hits = judged.hit | repaired
    ignored = (judged.ignored | wrong) & ~repaired
    if kind != "Cls":
        return _with(base, hits, ignored)
    scored = matches.scored
    classes = scored.classes.copy()
    classes[repaired] = scored.truth.classes[judged.box[repaired]]
    order = np.lexsort((-scored.scores, classes))
    return replace(
        base,
        hits=hits[order][None],
        ignored=ignored[order][None],
        images=base.images[order],
        starts=np.searchsorted(classes[order], np.arange(len(base.starts))),
    )


def _with(base: Ranked, hits: np.ndarray, ignored: np.ndarray) -> Ranked:
    return replace(base, hits=hits[None], ignored=ignored[None])


def _without(base: Ranked, kept: np.ndarray) -> Ranked:
    """With only the ``kept`` ones of the boxes that are to be found."""
    return replace(base, box_images=base.box_images[kept], box_classes=base.box_classes[kept])


def _mean(data: Ranked, known: np.ndarray) -> float:
    """The mean AP in per cent over the ``known`` classes.

    A class whose boxes were all left out counts 0 if it has detections, and not at all otherwise.
    """
    by_class = AveragePrecision(data)()[0]
    rows = np.flatnonzero(~data.ignored[0])
    detected = np.bincount(
        np.searchsorted(data.starts, rows, "right") - 1, minlength=len(by_class)
    ).astype(bool)
    by_class = np.where(np.isnan(by_class) & detected, 0.0, by_class)[known]
    return mean_ap(by_class)
