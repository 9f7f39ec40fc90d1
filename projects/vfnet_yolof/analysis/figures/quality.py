"""Figures of what detectors know of their boxes' quality, and of what they are to learn of it.

All are about the positive locations: the training's assigner runs on the test images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from ...config.options import ConfigError
from ...drawing.charts import MARKERS, bare, label_axes, line_style, new_axes, new_figure, plain
from ...drawing.curves import COLORS
from ..measures import rank_correlation
from ..positives import Positives, Seen, seen_images
from ..subject import Subject
from . import Drawn, Options

_DRAWN = 1500  # points of a model in a scatter plot; figures in words are of all of them
_HIGH = 0.9  # what the paper calls an extremely high quality score
_REG_MAX = (12, 14, 16, 18)  # of table 2b
_LOW = 0.4  # above which the paper sees most IoU labels
_CASES = 3  # boxes drawn in the manner of figure 8


class _Scores(NamedTuple):
    """(P,) or (B,) float64 in [0, 1] of one model; quality is None without a branch."""

    score: np.ndarray
    quality: np.ndarray | None
    iou: np.ndarray
    background: np.ndarray
    background_quality: np.ndarray | None

    @property
    def ranked_by(self) -> np.ndarray:
        """What ranks the positives in the NMS."""
        return self.score if self.quality is None else self.score * self.quality

    @property
    def shown_quality(self) -> np.ndarray:
        """What the model says of the quality: without a branch the score says both."""
        return self.score if self.quality is None else self.quality

    @property
    def kind(self) -> str:
        """By how many numbers score and quality are predicted."""
        return "joint" if self.quality is None else "separate"


def scores(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figure 2b of GFL: are the class score and the quality that is predicted the same thing?

    On the left the class score and the predicted quality of positive locations and of a sample of
    background, on the right what ranks the positives against the IoU of their boxes. A detector
    without a quality branch predicts both by one number: its points lie on the diagonal.

    The numbers have, by model, Spearman's rank correlations over all positives (with the mean rank
    for equal values; null where one side is constant), the share of background with a predicted
    quality above 0.9, and the points that are drawn.
    """
    rng = np.random.default_rng(0)  # which points are drawn
    figure = new_figure(9.6, 4.4)
    left, right = figure.subplots(1, 2)
    numbers: dict[str, Any] = {}
    said = []
    for number, (name, subject) in enumerate(_names(subjects).items()):
        found = _scores_of(subject, rng)
        rows = rng.permutation(len(found.score))[:_DRAWN]
        numbers[name] = _told_of(found, rows)
        correlations = numbers[name]["rank_correlation"]
        _draw_scores(left, right, found, rows, name, number)
        words = (
            f"{name}: rank correlation {_two(correlations['ranking, IoU'])} of what ranks with IoU"
        )
        if found.background_quality is not None:
            words += (
                f", {_two(correlations['score, quality'])} of score and quality; "
                f"{numbers[name]['background_above_0.9']:.1%} of the background has a quality "
                f"above {_HIGH}"
            )
        said.append(words)
    _unit_square(left, "class score", "predicted quality")
    _unit_square(right, "what ranks in the NMS", "IoU of the predicted box")
    right.get_legend().set_title("Spearman's correlation", {"size": 8})
    return Drawn(figure, {"scores": numbers}, ". ".join(said) + ".")


def _told_of(found: _Scores, rows: np.ndarray) -> dict[str, Any]:
    """One model's numbers; ``rows`` are those that are drawn."""
    pairs = {"ranking, IoU": (found.ranked_by, found.iou)}
    numbers: dict[str, Any] = {
        "representation": found.kind,
        "positives": len(found.score),
        "points": {
            "score": np.round(found.score[rows], 4).tolist(),
            "quality": np.round(found.shown_quality[rows], 4).tolist(),
            "iou": np.round(found.iou[rows], 4).tolist(),
        },
    }
    if found.quality is not None and found.background_quality is not None:
        pairs["score, quality"] = (found.score, found.quality)
        pairs["score, IoU"] = (found.score, found.iou)
        pairs["quality, IoU"] = (found.quality, found.iou)
        numbers["background_above_0.9"] = float((found.background_quality > _HIGH).mean())
    values = {key: rank_correlation(*pair) for key, pair in pairs.items()}
    numbers["rank_correlation"] = {k: None if math.isnan(v) else v for k, v in values.items()}
    return numbers


def _draw_scores(
    left: Axes, right: Axes, found: _Scores, rows: np.ndarray, name: str, number: int
) -> None:
    style: dict[str, Any] = {"s": 7, "marker": MARKERS[number], "alpha": 0.45}
    style["color"] = COLORS[number]
    quality = found.shown_quality[rows]
    left.scatter(found.score[rows], quality, label=f"{name}, {found.kind}", **style)
    value = rank_correlation(found.ranked_by, found.iou)
    text = f"{name}: {_two(value)}"
    right.scatter(found.ranked_by[rows], found.iou[rows], label=text, **style)
    if found.background_quality is not None:
        left.scatter(
            found.background[:_DRAWN],
            found.background_quality[:_DRAWN],
            label=f"{name}, background",
            facecolors="none",
            edgecolors=COLORS[number],
            s=9,
            marker=MARKERS[number],
            linewidths=0.4,
        )


def _scores_of(subject: Subject, rng: np.random.Generator) -> _Scores:
    """Of all positives, and of as many background locations of each image."""
    parts: list[tuple[Tensor | None, ...]] = []
    for seen in seen_images(subject):
        chosen = _background(seen, rng)
        logits = torch.cat([x.amax(1) for x in seen.outputs.logits])
        factors = None if seen.outputs.factors is None else torch.cat(seen.outputs.factors)
        found = seen.positives
        parts.append(
            (
                found.scores,
                found.quality,
                found.iou,
                logits[chosen].float().sigmoid(),
                None if factors is None else factors[chosen],
            )
        )
    columns = [_joined(column) for column in zip(*parts, strict=True)]
    if not parts or columns[0] is None or not len(columns[0]):
        raise _no_positives(subject)
    return _Scores(*columns)  # type: ignore[arg-type]  # only quality may be None


def _background(seen: Seen, rng: np.random.Generator) -> Tensor:
    """Rows of as many locations without a box as there are positives, at least 20."""
    count = sum(len(x) for x in seen.outputs.logits)
    free = np.ones(count, bool)
    rows = seen.positives.rows
    free[rows.cpu().numpy()] = False
    chosen = rng.permutation(np.flatnonzero(free))[: max(20, len(rows))]
    return torch.from_numpy(chosen).to(rows.device)


def targets(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figure 5c of GFL: the distances that boxes' sides are to be predicted at, in strides.

    The numbers have ``edges`` and ``counts`` of the histogram, and the share of sides beyond the
    ``reg_max`` of table 2b and, where it has one, the model's.

    Raises:
        ConfigError: the detector has anchors, or the images have no positives.
    """
    (subject,) = subjects
    parts = [_located(seen.positives.distances, subject) for seen in seen_images(subject)]
    distances = _joined(parts)
    if distances is None or not distances.size:
        raise _no_positives(subject)
    distances = distances.ravel()
    low, high = math.floor(min(distances.min(), 0.0)), math.ceil(max(distances.max(), 20.0))
    counts, edges = np.histogram(distances, bins=np.arange(low, high + 1))
    own = float(getattr(getattr(subject.model, "representation", None), "max_distance", math.inf))
    limits = sorted({*map(float, _REG_MAX), *([own] if math.isfinite(own) else [])})
    beyond = {f"{limit:g}": float((distances > limit).mean()) for limit in limits}
    figure, axes = new_axes()
    axes.stairs(counts, edges, fill=True, color=COLORS[0], alpha=0.7)
    shown = own if math.isfinite(own) else 16.0
    which = "reg_max of the model" if math.isfinite(own) else "GFL's reg_max"
    label = f"{which}, {shown:g}: {beyond[f'{shown:g}']:.2%} beyond"
    axes.axvline(shown, label=label, **line_style(1))
    label_axes(axes, "distance of location and side, strides", "sides")
    numbers = {
        "sides": len(distances),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "reg_max": own if math.isfinite(own) else None,
        "share_beyond": beyond,
    }
    sentence = (
        f"Of {len(distances)} sides {beyond[f'{shown:g}']:.2%} lie beyond {shown:g} strides "
        f"({which}); the farthest is {distances.max():.1f} strides away."
    )
    return Drawn(figure, numbers, sentence)


class _Case(NamedTuple):
    """A box whose best centerness is low: (4,) boxes and (P, 2) locations, pixels."""

    centerness: float
    iou: float
    box: np.ndarray
    pred_box: np.ndarray
    points: np.ndarray


def labels(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figures 8 and 9 of GFL: centerness and IoU as labels of all positives.

    Above the histograms of both labels (figure 9), below the boxes whose most central location
    has the least centerness, with their locations and the box predicted there (figure 8).

    The numbers have ``edges`` and the two ``counts``, the mean of each label, and the cases.

    Raises:
        ConfigError: the detector has anchors, or the images have no positives.
    """
    (subject,) = subjects
    kinds: dict[str, list[Tensor]] = {"centerness": [], "IoU": []}
    cases: list[_Case] = []
    for seen in seen_images(subject):
        kinds["centerness"].append(_located(seen.positives.centerness, subject))
        kinds["IoU"].append(seen.positives.iou)
        cases = sorted([*cases, *_cases(seen.positives)], key=lambda x: x.centerness)[:_CASES]
    if not cases:
        raise _no_positives(subject)
    values = {name: torch.cat(x).double().cpu().numpy() for name, x in kinds.items()}
    figure = new_figure(7.2, 6.0)
    grid = figure.add_gridspec(2, _CASES, height_ratios=(3, 2))
    numbers = _draw_labels(figure.add_subplot(grid[0, :]), values)
    for number, case in enumerate(cases):
        axes = figure.add_subplot(grid[1, number])
        _draw_case(axes, case)
        if number == 0:
            axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0.0, 0.0), ncols=2)
    numbers["cases"] = [
        {k: v if isinstance(v, float) else v.tolist() for k, v in case._asdict().items()}
        for case in cases
    ]
    told = [
        f"{name} is {numbers['mean'][name]:.2f} in the mean and below {_LOW} for "
        f"{numbers['share_below_0.4'][name]:.0%}"
        for name in values
    ]
    return Drawn(figure, numbers, f"Labels of {numbers['positives']} positives: {'; '.join(told)}.")


def _draw_labels(axes: Axes, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """The histograms of labels (P,) by name, and their numbers."""
    bare(axes)
    edges = np.linspace(0.0, 1.0, 21)
    count = len(next(iter(values.values())))
    numbers: dict[str, Any] = {"positives": count, "edges": edges.tolist(), "counts": {}}
    numbers |= {"mean": {}, "share_below_0.4": {}}
    for number, (name, found) in enumerate(values.items(), start=1):
        counts = np.histogram(found.clip(0, 1), bins=edges)[0]
        numbers["counts"][name] = counts.tolist()
        numbers["mean"][name] = float(found.mean())
        numbers["share_below_0.4"][name] = float((found < _LOW).mean())
        label = f"{name}, mean {found.mean():.2f}"
        axes.stairs(counts / count, edges, label=label, **line_style(number))
    axes.set_xlim(0, 1)
    label_axes(axes, "label", f"share of {count} positives")
    return numbers


def _cases(positives: Positives) -> list[_Case]:
    """Each box of an image with its most central location."""
    if positives.centerness is None or positives.points is None or not len(positives.rows):
        return []
    _, box_of = torch.unique(positives.boxes, dim=0, return_inverse=True)
    order = positives.centerness.argsort(descending=True, stable=True)
    number = torch.full((int(box_of.max()) + 1,), len(order), device=order.device)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    best = order[number.scatter_reduce_(0, box_of, place, reduce="amin")]
    worst = best[positives.centerness[best].argsort(stable=True)][:_CASES]
    columns = (positives.centerness, positives.iou, positives.boxes, positives.pred_boxes)
    found = []
    for row in worst.tolist():  # three at most
        centerness, iou, box, pred_box = (x[row].cpu().double().numpy() for x in columns)
        points = positives.points[box_of == box_of[row]].cpu().double().numpy()
        found.append(_Case(float(centerness), float(iou), box, pred_box, points))
    return found


def _draw_case(axes: Axes, case: _Case) -> None:
    for number, (name, box) in enumerate((("truth", case.box), ("predicted", case.pred_box))):
        style: dict[str, Any] = {"color": COLORS[number], "linestyle": "-" if number == 0 else "--"}
        corner, size = box[:2], box[2:] - box[:2]
        axes.add_patch(
            Rectangle((corner[0], corner[1]), size[0], size[1], fill=False, label=name, **style)
        )
    axes.plot(*case.points.T, linestyle="", marker="o", markersize=3, color="black")
    axes.set_aspect("equal", adjustable="datalim")
    axes.autoscale_view()
    axes.invert_yaxis()
    axes.set_axis_off()
    axes.set_title(f"centerness {case.centerness:.2f}\nIoU {case.iou:.2f}", fontsize=8)


def _names(subjects: Sequence[Subject]) -> dict[str, Subject]:
    """By the last parts of their names that tell them apart."""
    parts = [subject.name.rstrip("/").split("/") for subject in subjects]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(x[-depth:]) for x in parts]
        if len(set(names)) == len(names):
            return {plain(name): x for name, x in zip(names, subjects, strict=True)}
    raise ConfigError(f"{subjects[0].name} is named twice: name different models.")


def _located(values: Tensor | None, subject: Subject) -> Tensor:
    if values is None:
        raise ConfigError(
            f"{subject.name} is a {type(subject.model).__name__}, which has anchors: distances and "
            "centerness are of locations; name an FCOS, ATSS, GFL, VFNet, FoveaBox or RepPoints."
        )
    return values


def _no_positives(subject: Subject) -> ConfigError:
    return ConfigError(
        f"{subject.dataset}: the images that were looked at have no boxes: name annotated data, or "
        "more images with --images."
    )


def _joined(parts: Sequence[Tensor | None]) -> np.ndarray | None:
    """float64 of all images; None where the model has no such thing."""
    known = [part for part in parts if part is not None]
    return torch.cat(known).double().cpu().numpy() if known else None


def _two(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.2f}"


def _unit_square(axes: Axes, x: str, y: str) -> None:
    bare(axes)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    label_axes(axes, x, y)
