"""Accuracy against what it costs: one's own measurements, and beside them the papers'."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.ticker import LogLocator, NullFormatter

from ...config.options import ConfigError
from ...drawing.charts import MARKERS, label_axes, new_axes, plain
from ...drawing.curves import COLORS
from ...model_zoo.published import TEST_DEV, VAL, all_rows
from ..subject import Subject
from . import Drawn, Options

# What AP is drawn against: the key of a point, what a drawn unit of it is, and the axis's name.
_TIME, _ADDS = "time", "multiply-adds"
_AXES = {
    _TIME: ("milliseconds", 1.0, "time of an image (ms)"),
    _ADDS: ("multiply_adds", 1e9, "multiply-adds of an image (10^9)"),
}
_NAMED = 15  # published points at most of a series, so that all have their names
_WIDE = 8  # times the least cost: with dearer points the axis is logarithmic
_EVALUATED = {"vfnet": TEST_DEV, "gfl": TEST_DEV, "yolof": VAL}  # as in the papers' figures


class Point(NamedTuple):
    """A detector as it is drawn.

    Attributes:
        name: of the detector. ap: in percent. cost: in units of the axis.
        series: what it is drawn and compared with. published: a paper's, not measured here.
    """

    name: str
    ap: float
    cost: float
    series: str
    published: bool = False


def tradeoff(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figure 7 of GFL, 1 and 3 of YOLOF: AP against time or multiply-adds.

    Measurements are read from JSON files::

        {"data": "birds, val", "device": "8 threads of an EPYC",
         "points": [{"name": "mine", "ap": 40.0, "milliseconds": 50.0,
                     "multiply_adds": 100e9}]}

    A file is a series of its own, connected in the order of its costs. Published points are hollow
    and named so; they were measured on other data and another device. The numbers have all points,
    and of each series those to which no other is better and not dearer.

    Raises:
        ConfigError: there is nothing to draw, a file is not as above, or published points are asked
            for that no paper prints.
    """
    if not options.points and not options.published:
        raise ConfigError("figure tradeoff draws measurements: name files with --points.")
    points = [point for file in options.points for point in read_points(file, options.against)]
    for paper in options.published:
        points += published_points(paper, options.against)
    figure, axes = new_axes(6.6, 4.6)
    best: dict[str, list[Point]] = {}
    for number, name in enumerate(dict.fromkeys(point.series for point in points)):
        series = sorted((x for x in points if x.series == name), key=lambda x: (x.cost, x.ap))
        hollow = series[0].published
        axes.plot(
            [x.cost for x in series],
            [x.ap for x in series],
            label=plain(name),
            color=COLORS[number % len(COLORS)],
            marker=MARKERS[number % len(MARKERS)],
            markerfacecolor="none" if hollow else None,
            linestyle="none" if hollow else "-",
            linewidth=1.2,
        )
        # Of a paper's many points those are named to which none of it is better and cheaper.
        best[name] = front(series)
        for point in best[name] if hollow and len(series) > _NAMED else series:
            axes.annotate(
                plain(point.name),
                (point.cost, point.ap),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=6,
            )
    costs = [point.cost for point in points]
    if max(costs) > _WIDE * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    label_axes(axes, _AXES[options.against][2], "AP (%)")
    measured = sum(not point.published for point in points)
    first, names = next(iter(best.items()))
    sentence = f"{measured} measured and {len(points) - measured} published points; of those "
    sentence += f"{first}, none is both better and cheaper than {', '.join(x.name for x in names)}."
    if 0 < measured < len(points):
        sentence += " Published points are of other images and another device than measured ones."
    numbers = {
        "against": options.against,
        "points": [point._asdict() for point in points],
        "front": {name: [point.name for point in its] for name, its in best.items()},
    }
    return Drawn(figure, numbers, sentence)


def front(points: Sequence[Point]) -> list[Point]:
    """Those to which no other is better and not dearer, or cheaper and not worse; by cost."""
    found: list[Point] = []
    for point in sorted(points, key=lambda x: (x.cost, -x.ap)):
        if not found or point.ap > found[-1].ap:
            found.append(point)
    return found


def read_points(file: str, against: str) -> list[Point]:
    """The measurements of a file, see :func:`tradeoff`.

    Raises:
        ConfigError: it is not there or not as described; file, entry and value are named.
    """
    key, unit, _ = _AXES[against]
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--points {file} cannot be read as JSON: {error}") from error
    entries = content.get("points") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f'--points {file}: give {{"points": [{{"name": ..., "ap": ...}}]}}.')
    about = [str(content[x]) for x in ("data", "device") if content.get(x)]
    series = ", ".join(["measured", *about]) if about else f"measured: {Path(file).stem}"
    points = []
    for number, entry in enumerate(entries):
        where = f"--points {file}: points[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ConfigError(f"{where} needs a name, got {json.dumps(entry)[:80]}.")
        ap = _number(entry, "ap", where, 0.0, 100.0)
        cost = _number(entry, key, where, 0.0, math.inf)
        points.append(Point(entry["name"], ap, cost / unit, series))
    return points


def _number(entry: Mapping[str, Any], key: str, where: str, least: float, most: float) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < value <= most:
        wanted = f"above {least:g}" + ("" if math.isinf(most) else f" and at most {most:g}")
        given = "it is missing" if key not in entry else f"got {json.dumps(value)}"
        raise ConfigError(f"{where}.{key} must be a number {wanted}: {given}.")
    if math.isinf(value):
        raise ConfigError(f"{where}.{key} must be finite, got {value}.")
    return float(value)


def published_points(paper: str, against: str = _TIME) -> list[Point]:
    """The rows of a paper with AP and cost, one of each detector and GPU.

    Times are 1000 over the printed images a second. VFNet and GFL were evaluated on test-dev,
    YOLOF on val2017. Multiply-adds are printed by YOLOF's paper only, which calls them FLOPs.

    Raises:
        ConfigError: the paper prints no such cost.
    """
    found: dict[tuple[str, str], Point] = {}
    for row in all_rows():
        alike = row.paper == paper and row.evaluated_on == _EVALUATED[paper]
        cost, on = row.gflops, "mean of 100 images"
        if against == _TIME:
            cost = 1000 / row.fps if row.fps else None
            on = row.gpu or "a GPU that is not named"
        if not alike or row.ap is None or cost is None or row.table.startswith("readme"):
            continue
        series = f"published, {paper}, COCO {row.evaluated_on}, {on}"
        found.setdefault((row.label, on), Point(row.label, row.ap, cost, series, True))
    if not found:
        raise ConfigError(
            f"--published {paper} --against {against}: that paper prints none. Leave it out, or "
            "put your own into a file of --points."
        )
    return [*found.values()]
