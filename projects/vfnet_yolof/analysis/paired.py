"""Two detectors on the same images: whether one is better, and where they differ.

The images of a test set are a sample. How far the difference of AP depends on which images these
are is told by the bootstrap: images are drawn anew, with replacement, as many as there are, and
both detectors get the same ones, so that what makes an image hard for both does not count.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.faults import shown
from .compare import write_text
from .precision import AveragePrecision, mean_ap, ranked
from .report import Report, plain
from .report_charts import interval_chart
from .report_images import drawn_image
from .report_page import cards, document, figures, heading, legend, paragraph, table

RESAMPLES = 1000
FEWEST_IMAGES = 10  # resamples of fewer say little of other images
_COVERED = 95  # per cent of the resampled differences, between the ends of an interval
_SHOWN = 15  # classes in the chart, images on the page


@dataclass(frozen=True)
class Interval:
    """A difference of AP, B minus A, in per cent of AP, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """What two sets of detections have been told apart by.

    Attributes:
        names: of A and B. ap: theirs, in per cent.
        difference: of AP, B minus A. classes: by position, None for those without boxes.
        disagreement: (N,) int64, boxes of an image that one of them alone found, and how many more
            wrong detections one of them made.
        resamples: how many. images: of the data.
    """

    names: tuple[str, str]
    ap: tuple[float, float]
    difference: Interval
    classes: list[Interval | None]
    disagreement: np.ndarray
    resamples: int
    images: int

    @property
    def verdict(self) -> str:
        """One sentence: better, worse, or not told apart."""
        a, b = self.names
        change = self.difference
        figures = (
            f"AP {self.ap[1]:.1f} against {self.ap[0]:.1f}, difference {change.value:+.1f} "
            f"(95 % interval {change.low:+.1f} to {change.high:+.1f})"
        )
        if self.images < FEWEST_IMAGES:
            return (
                f"{b} and {a} are not told apart: {self.images} images are too few, at least "
                f"{FEWEST_IMAGES} are needed for an interval. {figures[0].upper()}{figures[1:]}."
            )
        if change.low > 0:
            return f"{b} is better than {a}: {figures}."
        if change.high < 0:
            return f"{b} is worse than {a}: {figures}."
        return f"{b} and {a} are not told apart by these images: {figures}."


def compared(
    reports: Sequence[Report], names: tuple[str, str], resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compare two reports on the same data.

    Args:
        reports: of A and B, with one ground truth.
        names: what to call them.
        resamples: of the images. seed: of their draw.

    Raises:
        ValueError: fewer than 100 resamples, which give no interval.
    """
    if resamples < 100:
        raise ValueError(f"--resamples must be at least 100, got {resamples}")
    first, second = (AveragePrecision(ranked(report.every)) for report in reports)
    count = len(reports[0].truth.image_ids)
    rng = np.random.default_rng(seed)
    differences, by_class = np.empty(resamples), []
    for number in range(resamples):
        weights = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
        a, b = first(weights), second(weights)
        differences[number] = mean_ap(b) - mean_ap(a)
        by_class.append(100 * (b - a).mean(axis=0))
    a, b = first(), second()
    return Comparison(
        names,
        (mean_ap(a), mean_ap(b)),
        _interval(mean_ap(b) - mean_ap(a), differences),
        [
            None if np.isnan(value) else _interval(float(value), drawn)
            for value, drawn in zip(
                100 * (b - a).mean(axis=0), np.stack(by_class, axis=1), strict=True
            )
        ],
        _disagreement(*reports),
        resamples,
        count,
    )


def _interval(value: float, drawn: np.ndarray) -> Interval:
    beyond = (100 - _COVERED) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a class that no resample has
        low, high = np.nanpercentile(drawn, [beyond, 100 - beyond])
    return Interval(value, float(low), float(high))


def _disagreement(first: Report, second: Report) -> np.ndarray:
    truth = first.truth
    alone = first.outcome.found != second.outcome.found
    boxes = np.bincount(truth.images[alone], minlength=len(truth.image_ids))
    total: np.ndarray = boxes + np.abs(first.counts.false - second.counts.false)
    return total


def class_table(result: Comparison, reports: Sequence[Report]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, the largest differences first."""
    names = reports[0].truth.class_names
    rows = [
        [
            shown(names[k]),
            *(f"{report.ap(classes=[k]):.1f}" for report in reports),
            f"{found.value:+.1f}",
            f"{found.low:+.1f} to {found.high:+.1f}",
        ]
        for k, found in _by_difference(result)
    ]
    return ["class", "AP of A", "AP of B", "B minus A", "95 % interval"], rows


def _by_difference(result: Comparison) -> list[tuple[int, Interval]]:
    found = [(k, interval) for k, interval in enumerate(result.classes) if interval is not None]
    return sorted(found, key=lambda row: -abs(row[1].value))


def write_comparison(result: Comparison, reports: Sequence[Report], folder: Path) -> Path:
    """Write ``comparison.html`` and ``comparison.json``; returns the page."""
    truth = reports[0].truth
    order = np.argsort(-result.disagreement, kind="stable")
    order = order[result.disagreement[order] > 0]
    content = {
        "verdict": result.verdict,
        "a": result.names[0],
        "b": result.names[1],
        "annotations": truth.name,
        "ap": result.ap,
        "difference": vars(result.difference),
        "resamples": result.resamples,
        "classes": {truth.class_names[k]: vars(x) for k, x in _by_difference(result)},
        "images": [
            {"image_id": truth.image_ids[i], "disagreement": result.disagreement[i]}
            for i in order.tolist()
        ],
    }
    write_text(folder / "comparison.json", json.dumps(plain(content), indent=1) + "\n")
    write_text(folder / "comparison.html", _page(result, reports, order[:_SHOWN].tolist()))
    return folder / "comparison.html"


def _page(result: Comparison, reports: Sequence[Report], images: Sequence[int]) -> str:
    truth = reports[0].truth
    rows = [
        (truth.class_names[k], x.low, x.value, x.high) for k, x in _by_difference(result)[:_SHOWN]
    ]
    everything = ("all classes", *(vars(result.difference)[x] for x in ("low", "value", "high")))
    return document(
        "Two detectors on the same images",
        [
            paragraph(result.verdict),
            paragraph(f"A: {result.names[0]}"),
            paragraph(f"B: {result.names[1]}"),
            paragraph(f"Data: {truth.name}, {len(truth.image_ids)} images."),
            cards({"AP of A": f"{result.ap[0]:.1f}", "AP of B": f"{result.ap[1]:.1f}"}),
            *(
                paragraph(f"{which}: {note}", "note")
                for which, report in zip("AB", reports, strict=True)
                for note in report.notes
            ),
            heading("Differences by class"),
            paragraph(
                f"Intervals of {_COVERED} % from {result.resamples} resampled sets of images. Of "
                "twenty classes without a difference one will have an interval beside 0."
            ),
            figures([(interval_chart([everything, *rows]), "B minus A.")]),
            table(*class_table(result, reports)),
            heading("The images on which they disagree most"),
            paragraph(
                "Counted are boxes that one of them alone found, and how many more wrong "
                "detections one of them has, each class at its threshold with the best F1."
            ),
            legend(),
            *(_side_by_side(result, reports, image) for image in images),
        ],
    )


def _side_by_side(result: Comparison, reports: Sequence[Report], image: int) -> str:
    name = f"image {shown(reports[0].truth.image_ids[image])}"
    parts: list[Any] = []
    for which, report in zip("AB", reports, strict=True):
        counts = report.counts
        text = (
            f"{which}, {name}: {counts.hits[image]} of {counts.boxes[image]} boxes found, "
            f"{counts.false[image]} wrong; they differ in {result.disagreement[image]}"
        )
        try:
            parts.append((drawn_image(report, image), text))
        except (OSError, ValueError) as error:
            return paragraph(f"{text}. Not drawn: {error}")
    return figures(parts)
