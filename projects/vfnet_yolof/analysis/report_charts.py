"""The charts of the report, each as an SVG: no request leaves the page, and it prints sharply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..drawing.charts import (
    DASHES,
    GREY,
    bare,
    file_bytes,
    label_axes,
    line_style,
    new_axes,
    new_figure,
    plain,
)
from ..drawing.curves import COLORS
from .error_types import KINDS
from .measures import GRID, Calibration, Curve
from .precision import RECALLS

SHOWN_CLASSES = 6  # in one chart; colours and dashes of more could not be told apart
_LARGEST_MATRIX = 25  # classes with a row of their own in the drawn confusion matrix


def _svg(figure: Figure) -> bytes:
    return file_bytes(figure, "svg", "report")


def precision_recall_chart(curves: Mapping[str, np.ndarray]) -> bytes:
    """Precision against recall.

    Args:
        curves: by label, (101,) interpolated precision at each of COCO's recalls.
    """
    figure, axes = new_axes()
    for number, (name, precision) in enumerate(curves.items()):
        axes.plot(RECALLS, precision, label=plain(name), **line_style(number))
    label_axes(axes, "recall", "precision")
    axes.set_xlim(0, 1.0)
    axes.set_ylim(0, 1.02)
    return _svg(figure)


def f1_chart(curves: Mapping[str, Curve]) -> bytes:
    """F1 against the score threshold, with a dot where it is highest."""
    figure, axes = new_axes()
    for number, (name, curve) in enumerate(curves.items()):
        style = line_style(number)
        axes.plot(GRID, curve.at(GRID)[2], label=plain(name), **style)
        if curve.best is not None:
            axes.plot(*curve.best[:2], marker="o", markersize=5, color=style["color"])
    label_axes(axes, "score threshold", "F1")
    axes.set_xlim(0, 1.0)
    axes.set_ylim(0, 1.02)
    return _svg(figure)


def error_shares_chart(lost: Mapping[str, float]) -> bytes:
    """The share of each kind in the AP that all of them lose."""
    figure, axes = new_axes(4.6, 3.4)
    shares = np.array([lost[kind] for kind in KINDS])
    total = shares.sum()
    axes.set_axis_off()
    if total > 0:
        named = shares > 0.03 * total
        axes.pie(
            shares,
            labels=np.where(named, KINDS, "").tolist(),
            colors=COLORS[: len(KINDS)],
            counterclock=False,
            startangle=90,
            wedgeprops={"edgecolor": "white", "linewidth": 1.5},
        )
    else:
        axes.text(0.5, 0.5, "no AP is lost", ha="center")
    return _svg(figure)


def error_costs_chart(lost: Mapping[str, float]) -> bytes:
    """AP in per cent that each kind loses, and all false positives and negatives."""
    figure, axes = new_axes(4.6, 3.4)
    names = [*KINDS, "FP", "FN"]
    colors = [*COLORS[: len(KINDS)], GREY, GREY]
    bars = axes.barh(names, [lost[x] for x in names], color=colors)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max([*lost.values(), 1.0]))
    axes.set_xlabel("AP at IoU 0.5 that is lost (%)")
    return _svg(figure)


def confusion_chart(confusion: np.ndarray, names: Sequence[str]) -> bytes | None:
    """Shares of each row, with counts; None where there are too many classes to read it."""
    if len(names) > _LARGEST_MATRIX:
        return None
    size = 2.4 + 0.42 * len(names)
    figure, axes = new_axes(max(5.0, size + 0.8), max(3.8, size))
    total = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, total, out=np.zeros(confusion.shape), where=total > 0)
    shares[-1, -1] = np.nan
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for i, j in np.argwhere(confusion > 0).tolist():
        color = "black" if shares[i, j] > 0.5 else "white"
        axes.text(j, i, str(confusion[i, j]), ha="center", va="center", fontsize=8, color=color)
    labels = [plain(_short(name)) for name in names]
    every = np.arange(len(names) + 1)
    axes.set_xticks(every, [*labels, "missed"], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(every, [*labels, "background"])
    axes.set_xlabel("detected as")
    axes.set_ylabel("is")
    return _svg(figure)


def calibration_chart(found: Calibration) -> bytes:
    """Precision and mean IoU of the detections in each bin of scores, and how many these are."""
    figure = new_figure(5.6, 4.4)
    axes, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="calibrated")
    for number, (name, values) in enumerate(
        (("precision", found.precision), ("mean IoU", found.ious))
    ):
        axes.plot(found.scores, values, marker="os"[number], label=name, **line_style(number))
    label_axes(axes, "", "share of hits; IoU")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    width = 1 / len(found.counts)
    below.bar((np.arange(len(found.counts)) + 0.5) * width, found.counts, 0.9 * width, color=GREY)
    below.set_yscale("symlog")
    below.set_xlabel("score")
    below.set_ylabel("detections")
    bare(axes)
    bare(below)
    return _svg(figure)


def histogram_chart(
    counts: Mapping[str, np.ndarray], edges: np.ndarray, label: str, marks: Sequence[float] = ()
) -> bytes:
    """Counts of boxes in bins that are equally wide on a logarithmic axis.

    Args:
        counts: by label, (B,). edges: (B + 1,). label: of the horizontal axis, with its unit.
        marks: values at which a line stands.
    """
    figure, axes = new_axes(5.6, 3.2)
    for number, (name, values) in enumerate(counts.items()):
        axes.stairs(
            values,
            edges,
            label=name,
            linewidth=1.8,
            color=COLORS[number],
            linestyle=DASHES[number],
        )
    for mark in marks:
        axes.axvline(mark, color=GREY, linestyle=":", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    label_axes(axes, label, "boxes")
    axes.set_ylim(bottom=0)
    return _svg(figure)


def interval_chart(differences: Sequence[tuple[str, float, float, float]]) -> bytes:
    """Differences with their intervals, one below the other.

    Args:
        differences: name, lower end, value and upper end of each.
    """
    figure, axes = new_axes(5.6, 1.2 + 0.28 * len(differences))
    for row, (_, low, value, high) in enumerate(differences):
        color = COLORS[0] if low > 0 else COLORS[1] if high < 0 else GREY
        axes.plot([low, high], [row, row], color=color, linewidth=2)
        axes.plot(value, row, marker="o", color=color)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(differences)), [plain(_short(row[0])) for row in differences])
    axes.invert_yaxis()
    axes.set_xlabel("difference of AP, B minus A")
    return _svg(figure)


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
