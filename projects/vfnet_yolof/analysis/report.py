"""What a detector's results say about it: all figures of the report, and the files they go into."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.faults import shown
from ..evaluation.coco_ap import DetectionArrays, can_use_hotcoco, coco_curves
from ..evaluation.federated import is_federated, lvis_figures
from .compare import write_text
from .error_types import Errors, error_types
from .matches import IOUS, Matches, match
from .measures import (
    GRID,
    Calibration,
    Curve,
    ImageCounts,
    Outcome,
    calibration,
    class_curves,
    image_counts,
    outcome,
)
from .scored import Scored, Truth

PAGE = "report.html"
THRESHOLDS = "thresholds.json"
SIZE_EDGES = 2.0 ** np.arange(1, 11.5, 0.5)  # px, root of the area
ASPECT_EDGES = 2.0 ** np.arange(-4, 4.5, 0.5)  # width / height


@dataclass(frozen=True)
class Options:
    """What a reader of the report may choose.

    Attributes:
        iou: from which a detection is a hit, except in AP; one of COCO's ten.
        score: threshold of confusion, histograms and images; None: of each class its own, where
            its F1 is highest.
        max_dets: detections of a class that count in an image, the best ones.
        images: how many of the worst images are drawn.
    """

    iou: float = 0.5
    score: float | None = None
    max_dets: int = 100
    images: int = 12

    def __post_init__(self) -> None:
        if not np.isclose(IOUS, self.iou).any():
            raise ValueError(f"--iou must be one of 0.5, 0.55, ..., 0.95, got {self.iou}")
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"--score-threshold must lie in 0 to 1, got {self.score}")
        if self.max_dets < 1 or self.images < 0:
            raise ValueError("--max-dets must be at least 1, --worst-images at least 0")


@dataclass
class Report:
    """Everything the page shows.

    Attributes:
        scored, options: what was reported on, and how.
        every: matches at COCO's ten IoUs. matches: at ``options.iou``.
        precision: (10 IoUs, 101 recalls, K, 4 areas), see :class:`.Curves`.
        curves: of each class and, at the end, of all together, at ``options.iou``.
        thresholds: (K,) the scores from which detections count in what follows.
        outcome, counts: at these thresholds, of boxes and of images.
        errors: by TIDE's types. calibration: of the scores.
        lvis: AP by LVIS's rules, of federated annotations; {} of others.
        notes: what a reader must know of the data. facts: names and values of the run.
    """

    scored: Scored
    options: Options
    every: Matches
    matches: Matches
    precision: np.ndarray
    curves: list[Curve]
    thresholds: np.ndarray
    outcome: Outcome
    counts: ImageCounts
    errors: Errors
    calibration: Calibration
    lvis: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def truth(self) -> Truth:
        return self.scored.truth

    def ap(self, *, classes: Any = slice(None), area: int = 0, ious: Any = slice(None)) -> float:
        """AP in per cent, NaN where there is no ground truth; see :attr:`precision`."""
        part = self.precision[ious][..., classes, area]
        measured = part[part > -1]
        return float(measured.mean() * 100) if measured.size else math.nan

    def headline(self) -> dict[str, float]:
        """COCO's six figures of AP, in per cent."""
        by_area = {f"AP{name}": self.ap(area=area) for area, name in enumerate("sml", start=1)}
        ap50, ap75 = self.ap(ious=[0]), self.ap(ious=[5])
        return {"AP": self.ap(), "AP50": ap50, "AP75": ap75, **by_area}

    def worst(self) -> np.ndarray:
        """Images by falling number of mistakes; those with none are left out."""
        mistakes = self.counts.mistakes
        order = np.argsort(-mistakes, kind="stable")[: self.options.images]
        worst: np.ndarray = order[mistakes[order] > 0]
        return worst


def analyse(
    truth: Truth,
    found: DetectionArrays,
    options: Options = Options(),
    facts: Sequence[tuple[str, str]] = (),
) -> Report:
    """All figures of detections on a data set.

    Args:
        found: the detections; images and classes by position.
        facts: of the run, such as versions; shown at the end of the page.
    """
    scored = Scored(truth, found, options.max_dets)
    every = match(scored)
    matches = every.at(options.iou)
    curves = class_curves(matches)
    thresholds = _thresholds(curves, options)
    result = outcome(matches, thresholds)
    report = Report(
        scored,
        options,
        every,
        matches,
        coco_curves(truth.as_dicts(), found, len(truth.class_names), options.max_dets).precision,
        curves,
        thresholds,
        result,
        image_counts(matches, result),
        error_types(every),
        calibration(matches),
        facts=list(facts),
    )
    report.notes = _notes(report)
    if truth.json_file is not None and is_federated(truth.json_file):
        report.notes.append(_by_lvis_rules(report, found))
    return report


def _by_lvis_rules(report: Report, found: DetectionArrays) -> str:
    """Add these figures where they can be computed; returns what is to be said of them."""
    truth = report.truth
    text = (
        "Images of these annotations were searched for some classes only (neg_category_ids); "
        "COCO's rules, by which the figures below are, take what is not marked for background. "
    )
    if not can_use_hotcoco():
        return text + "To have AP by LVIS's rules, too: pip install hotcoco."
    assert truth.json_file is not None
    ids = truth.image_ids, truth.category_ids
    report.lvis = lvis_figures(truth.json_file, found, *ids)
    return (
        text
        + "AP by LVIS's rules, with at most 300 detections an image: "
        + ", ".join(
            f"{name} {value:.1f}" for name, value in report.lvis.items() if not math.isnan(value)
        )
    )


def _thresholds(curves: Sequence[Curve], options: Options) -> np.ndarray:
    """Of each class; one without any hit takes that of all classes together."""
    *classes, everything = curves
    if options.score is not None:
        return np.full(len(classes), options.score)
    shared = everything.best[0] if everything.best else 0.5
    return np.array([curve.best[0] if curve.best else shared for curve in classes])


def _notes(report: Report) -> list[str]:
    truth, scored = report.truth, report.scored
    notes = []
    if not len(scored):
        notes.append("There is not a single detection.")
    elif not len(report.matches.pairs.found):
        notes.append("No detection overlaps any box: are these the results of other data?")
    without = len(truth.image_ids) - len(np.unique(scored.images))
    if without and len(scored):
        notes.append(f"{without} of {len(truth.image_ids)} images have no detection at all.")
    if scored.left_out:
        notes.append(
            f"{scored.left_out} detections were left out: only the best {report.options.max_dets} "
            "of a class count in an image."
        )
    if crowds := int(truth.crowds.sum()):
        excused = int(report.matches.ignored.sum())
        notes.append(
            f"{crowds} regions are crowds: they need not be found, and {excused} detections in "
            "them count neither as right nor as wrong."
        )
    absent = [
        shown(name)
        for name, count in zip(truth.class_names, truth.positives, strict=True)
        if not count
    ]
    if absent:
        notes.append(
            f"Classes without boxes here, and without AP: {len(absent)} ({', '.join(absent[:8])}"
            + (", ...)." if len(absent) > 8 else ").")
        )
    return notes


def class_rows(report: Report) -> list[dict[str, Any]]:
    """A row for each class: counts, AP (in per cent), and its best score threshold."""
    truth, rows = report.truth, []
    kept = np.bincount(report.scored.classes, minlength=len(truth.class_names))
    for k, name in enumerate(truth.class_names):
        best = report.curves[k].best or (math.nan,) * 4
        rows.append(
            {
                "class": name,
                "boxes": int(truth.positives[k]),
                "detections": int(kept[k]),
                "AP": report.ap(classes=[k]),
                "AP50": report.ap(classes=[k], ious=[0]),
                "AP75": report.ap(classes=[k], ious=[5]),
                "APs": report.ap(classes=[k], area=1),
                "APm": report.ap(classes=[k], area=2),
                "APl": report.ap(classes=[k], area=3),
                "threshold": best[0],
                "F1": best[1],
                "precision": best[2],
                "recall": best[3],
            }
        )
    return rows


def histograms(report: Report) -> dict[str, dict[str, np.ndarray]]:
    """Counts of boxes, found boxes and detections by size and by aspect ratio."""
    truth, result = report.truth, report.outcome
    groups = {
        "ground truth": truth.boxes[~truth.crowds],
        "found": truth.boxes[result.found],
        "detections": report.scored.boxes[result.kept],
    }
    sizes, aspects = {}, {}
    for name, boxes in groups.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            width, height = boxes[:, 2], boxes[:, 3]
            sizes[name] = _histogram(np.sqrt(width * height), SIZE_EDGES)
            aspects[name] = _histogram(width / height, ASPECT_EDGES)
    return {"size": sizes, "aspect": aspects}


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts; what lies beyond an end counts in the bin there."""
    values = np.clip(np.nan_to_num(values, nan=1.0), edges[0], edges[-1])
    counts: np.ndarray = np.histogram(values, edges)[0]
    return counts


def as_json(report: Report) -> dict[str, Any]:
    """All figures, null where a figure has nothing to be measured on."""
    truth, found, result = report.truth, report.calibration, report.outcome
    names = truth.class_names
    content = {
        "data": {
            "annotations": truth.name,
            "images": len(truth.image_ids),
            "boxes": int(truth.positives.sum()),
            "crowds": int(truth.crowds.sum()),
            "detections": len(report.scored),
            "left_out": report.scored.left_out,
        },
        "iou": report.options.iou,
        "ap": report.headline(),
        "lvis": report.lvis,
        "classes": class_rows(report),
        "curves": {
            name: dict(zip(("precision", "recall", "f1"), curve.at(GRID), strict=True))
            for name, curve in zip([*names, "all classes"], report.curves, strict=True)
        },
        "curve_thresholds": GRID,
        "score_thresholds": dict(zip(names, report.thresholds, strict=True)),
        "confusion": {"classes": [*names, "background"], "counts": result.confusion},
        "errors": {
            "ap50": report.errors.ap,
            "ap_lost": dict(report.errors.lost),
            "counts": dict(report.errors.counts),
        },
        "calibration": {
            "detections": found.counts,
            "score": found.scores,
            "precision": found.precision,
            "iou": found.ious,
            "error_against_precision": found.precision_error,
            "error_against_iou": found.iou_error,
            "rank_correlation_with_iou": found.rank_correlation,
        },
        "histograms": {
            "size_edges": SIZE_EDGES,
            "aspect_edges": ASPECT_EDGES,
            **histograms(report),
        },
        "notes": report.notes,
        "run": dict(report.facts),
    }
    figures: dict[str, Any] = plain(content)
    return figures


def plain(value: Any) -> Any:
    """What JSON has for arrays, numpy's numbers and NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(x) for key, x in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(x) for x in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_report(report: Report, folder: Path) -> Path:
    """Write ``report.html``, ``report.json``, ``classes.csv``, ``images.csv`` and
    ``thresholds.json``; returns the page.

    Raises:
        FileWriteError: a file cannot be written.
    """
    from .report_page import page

    write_text(folder / "report.json", json.dumps(as_json(report), indent=1) + "\n")
    write_text(folder / "classes.csv", _csv(class_rows(report)))
    write_text(folder / "images.csv", _csv(_image_rows(report)))
    thresholds = {
        "measure": "F1",
        "iou": report.options.iou,
        "annotations": report.truth.name,
        "thresholds": {
            name: curve.best[0]
            for name, curve in zip(report.truth.class_names, report.curves[:-1], strict=True)
            if curve.best is not None
        },
    }
    write_text(folder / THRESHOLDS, json.dumps(thresholds, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / PAGE, page(report))
    return folder / PAGE


def _image_rows(report: Report) -> list[dict[str, Any]]:
    truth, counts = report.truth, report.counts
    files = truth.files or [""] * len(truth.image_ids)
    columns = (truth.image_ids, files, counts.boxes, counts.hits, counts.misses, counts.false)
    keys = ("image_id", "file", "boxes", "hits", "misses", "false")
    rows = [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
    return sorted(rows, key=lambda row: -int(row["misses"] + row["false"]))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    return buffer.getvalue()
