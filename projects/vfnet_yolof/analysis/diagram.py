"""Diagrams of detectors, drawn from the built models (as figure 3 of VFNet's paper, figures 1, 4
and 6 of GFL's, figures 2, 5, 8 and 9 of YOLOF's).

Above, the backbone and the neck, a row for each of their sizes; below, the head, from its input to
its predictions, and what becomes of these: solid arrows to the losses in training, dashed ones to
what is done in tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import nn

from ..config.inference import read_inference_config
from ..config.options import ConfigError
from ..config.yaml_files import Trust
from ..drawing.charts import new_figure
from ..drawing.curves import COLORS
from .architecture import BACKBONE, HEAD, NECK, Architecture, Block, architecture_of
from .cost import build_without_memory
from .figures import Drawn
from .uses import OUTPUT, TESTING, TRAINING, predictions_of, uses_of

_COLUMN, _ROW = 1.5, 0.72  # inches between the middles of neighbouring boxes
_BOX = (1.24, 0.54)
_FONT = 7.0  # points
_COLORS = {
    BACKBONE: "#E0E0E0",
    NECK: "#CFE6F5",
    HEAD: "#FBE3CC",
    "level": "#FFFFFF",
    OUTPUT: "#D5EFE5",
    TRAINING: "#F4D9E6",
    TESTING: "#FFFFFF",
}
_MARGIN = 0.75  # rows from a heading to the first box's middle

_USES = (TRAINING, TESTING)
_SWEEPS = 7
Places = dict[str, tuple[float, float]]  # column, row (from the top)


def diagram(
    config: str,
    size: tuple[int, int],
    changes: Sequence[str] = (),
    trust: Trust | None = None,
) -> Drawn:
    """The diagram of a config's detector; its numbers are :meth:`.Architecture.as_dict`.

    With them ``uses``: the losses and what tests do, with the predictions that each takes.

    Raises:
        OSError, ValueError: no such config, a wrong change, or a size that is not positive.
        ConfigError: the config has no detector whose parts can be told apart.
    """
    build = read_inference_config(config, changes, trust).build_model
    try:
        model = build_without_memory(build)
        figure, graph = draw(model, size, config)
    except TypeError as error:
        raise ConfigError(f"{config}: {error}") from error
    names = ", ".join(name for name, _, _ in graph.levels)
    blocks = sum(block.repeats for block in graph.blocks.values())
    sentence = f"{config}: {blocks} blocks; the head takes {names}."
    uses = uses_of(model, predictions_of(model, graph)).values()
    numbers = {
        **graph.as_dict(),
        "uses": [{"part": x.part, "lines": x.lines, "sources": [*x.sources]} for x in uses],
    }
    return Drawn(figure, numbers, sentence)


def draw(model: nn.Module, size: tuple[int, int], title: str) -> tuple[Figure, Architecture]:
    """The diagram of a detector, and what is drawn in it.

    Args:
        model: as of :func:`.architecture.architecture_of`, which raises what is raised.
        size: (height, width) of the image in px, whose feature maps' sizes are drawn.
    """
    graph = architecture_of(model, size)
    above, above_places = _body(graph)
    predictions = predictions_of(model, graph)
    below = {**graph.part(HEAD), **predictions, **uses_of(model, predictions)}
    below_places = layered(below)
    columns = max(x for x, _ in [*above_places.values(), *below_places.values()])
    rows = [max(y for _, y in places.values()) + 1 for places in (above_places, below_places)]
    split = rows[0] + 2 * _MARGIN - 1
    figure, axes = _page(columns, split + rows[1])
    shared = len(graph.levels) > 1 and not {x[0] for x in graph.levels} & {*graph.blocks}
    headings = [
        (-0.42, -_MARGIN, "backbone"),
        (0.58, -_MARGIN, "neck" if graph.part(NECK) else ""),
        (-0.42, split - _MARGIN, "head, the same weights on all levels" if shared else "head"),
    ]
    for x, y, text in headings:
        axes.text(x, y, text, fontsize=_FONT + 1.5, fontweight="bold", va="center")
    height, width = graph.image
    axes.set_title(f"{title}: an image of {height} × {width} px", fontsize=_FONT + 3, loc="left")
    _draw_blocks(axes, above, above_places)
    moved = {name: (x, y + split) for name, (x, y) in below_places.items()}
    _draw_blocks(axes, below, moved)
    return figure, graph


def _page(columns: float, rows: float) -> tuple[Figure, Axes]:
    figure = new_figure(_COLUMN * (columns + 1.1), _ROW * (rows + 1.1))
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.55, columns + 0.55)
    axes.set_ylim(rows - 0.4, -_MARGIN - 0.35)
    return figure, axes


def _body(graph: Architecture) -> tuple[dict[str, Block], Places]:
    """Backbone and neck, with the levels that go to the head, and their places.

    Coarse features are above fine ones, as in the papers. A neck's block is in the row of the
    backbone's last block of the same size; coarser ones lie above.
    """
    backbone, neck = graph.part(BACKBONE), graph.part(NECK)
    heights = [_height(block) for block in backbone.values()]
    row_of = {height: row for row, height in enumerate(heights)}
    last = len(heights) - 1
    coarser = sorted({_height(block) for block in neck.values()} - {*row_of}, reverse=True)
    row_of.update({height: last + i for i, height in enumerate(coarser, start=1)})
    top = max([last, *row_of.values()])
    places: Places = {name: (0.0, float(top - row)) for row, name in enumerate(backbone)}
    taken = {*places.values()}
    for name, block in neck.items():
        row = float(top - row_of[_height(block)])
        column = 1.0 + max((places[x][0] for x in block.sources if x in places), default=0.0)
        while (column, row) in taken:
            column += 1.0
        places[name] = (column, row)
        taken.add((column, row))
    blocks = {**backbone, **neck}
    end = max(x for x, _ in places.values()) + 1.0
    for name, maker, shape in graph.levels:
        label = Block(name, "level", [name, "×".join(map(str, shape))], [shape], {maker: None})
        blocks[f"level {name}"] = label
        row = places[maker][1]
        while (end, row) in taken:
            row += 1.0
        places[f"level {name}"] = (end, row)
        taken.add((end, row))
    return blocks, places


def _height(block: Block) -> int:
    return block.shapes[0][1]


def layered(blocks: Mapping[str, Block]) -> Places:
    """Places from left to right, each block right of all its sources.

    An arrow over several columns keeps a place of its own in each of them, so that it passes
    between the boxes. In each column blocks have the order of their neighbours' rows, which are
    settled from left to right and back, so that few arrows cross.
    """
    column = _columns(blocks)
    sources: dict[str, list[str]] = {name: [] for name in blocks}
    waypoints: dict[tuple[str, int], str] = {}
    for name, block in blocks.items():
        for source in block.sources:
            previous = source
            for step in range(column[source] + 1, column[name]):
                point = waypoints.setdefault((source, step), f"{source} > {step}")
                column[point] = step
                sources.setdefault(point, [previous])
                previous = point
            sources[name].append(previous)
    users: dict[str, list[str]] = {name: [] for name in sources}
    for name, its in sources.items():
        for source in its:
            users[source].append(name)
    columns = [[x for x in sources if column[x] == n] for n in range(max(column.values()) + 1)]
    rows: dict[str, float] = {}
    for sweep in range(_SWEEPS):
        for names in columns if sweep % 2 == 0 else reversed(columns):
            beside = {x: [*sources[x], *(users[x] if sweep else [])] for x in names}
            wanted = {x: _mean([rows[y] for y in beside[x] if y in rows]) for x in names}
            rows.update(_spread(sorted(names, key=wanted.__getitem__), wanted, blocks))
    top = min(rows.values())
    return {name: (float(column[name]), rows[name] - top) for name in rows}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _columns(blocks: Mapping[str, Block]) -> dict[str, int]:
    """The length of the longest way to each block; predictions stand right of all that is before.

    Sources come before what they go to, and predictions before their uses.
    """
    column: dict[str, int] = {}
    outputs = [name for name, block in blocks.items() if block.part == OUTPUT]
    for name, block in blocks.items():
        if block.part in _USES and outputs:
            column.update(dict.fromkeys(outputs, max(column[x] for x in outputs)))
            outputs = []
        column[name] = 1 + max((column[x] for x in block.sources), default=-1)
    column.update(dict.fromkeys(outputs, max(column.values())))
    return column


def _spread(
    names: Sequence[str], wanted: Mapping[str, float], blocks: Mapping[str, Block]
) -> dict[str, float]:
    """Rows near the wanted ones, in their order, that do not overlap.

    A waypoint of an arrow needs less room than a box.
    """
    rows: dict[str, float] = {}
    previous = None
    for name in names:
        row = wanted[name]
        if previous is not None:
            both = (name in blocks) + (previous in blocks)
            row = max(row, rows[previous] + (0.5, 0.75, 1.0)[both])
        rows[name] = row
        previous = name
    # Pushing down only would let later columns sink: the whole column goes back to its middle.
    if rows:
        drift = _mean([*rows.values()]) - _mean([wanted[x] for x in names])
        rows = {name: row - drift for name, row in rows.items()}
    return rows


def _draw_blocks(axes: Axes, blocks: Mapping[str, Block], places: Places) -> None:
    for name, block in blocks.items():
        for source in block.sources:
            if source in places:
                _arrow(axes, blocks[source], block, _way(places, source, name))
    for name, block in blocks.items():
        _box(axes, block, *places[name])


def _way(places: Places, source: str, name: str) -> list[tuple[float, float]]:
    """The places that an arrow passes: level across a column, or above a box that lies on it."""
    (x0, y0), (x1, y1) = places[source], places[name]
    between = [places.get(f"{source} > {step}") for step in range(int(x0) + 1, int(x1))]
    half = _BOX[0] / 2 / _COLUMN
    way = [(x + side, y) for x, y in filter(None, between) for side in (-half, half)]
    if y0 == y1 and any(x0 < x < x1 and y == y0 for x, y in places.values()):
        way = way or [(x0 + 0.5, y0 - 0.48), (x1 - 0.5, y0 - 0.48)]
    return [places[source], *way, places[name]]


def _half(block: Block) -> tuple[float, float]:
    """Half of a box's width and height, in columns and rows."""
    if block.is_join:
        return 0.1, 0.1 * _COLUMN / _ROW
    return _BOX[0] / 2 / _COLUMN, _BOX[1] / 2 / _ROW


def _arrow(axes: Axes, source: Block, block: Block, way: list[tuple[float, float]]) -> None:
    (x0, y0), (x1, y1) = way[0], way[-1]
    start, end = _half(source), _half(block)
    if x0 == x1:
        down = 1 if y1 > y0 else -1
        way = [(x0, y0 + down * start[1]), (x1, y1 - down * end[1])]
    else:
        way = [(x0 + start[0], y0), *way[1:-1], (x1 - end[0], y1)]
    dashes = "--" if block.part == TESTING else "-"
    style: dict[str, Any] = {"color": "#444444", "linewidth": 0.8, "linestyle": dashes}
    for first, second in zip(way[:-2], way[1:-1], strict=True):
        axes.plot(*zip(first, second, strict=True), zorder=1, solid_capstyle="round", **style)
    axes.add_patch(
        FancyArrowPatch(
            way[-2],
            way[-1],
            arrowstyle="-|>",
            mutation_scale=7,
            shrinkA=0,
            shrinkB=0,
            zorder=1,
            **style,
        )
    )


def _box(axes: Axes, block: Block, x: float, y: float) -> None:
    half = _half(block)
    rounding = 0.0 if block.part == "level" else 0.04
    axes.add_patch(
        FancyBboxPatch(
            (x - half[0], y - half[1]),
            2 * half[0],
            2 * half[1],
            boxstyle=f"round,pad=0,rounding_size={rounding}",
            facecolor=_COLORS[block.part],
            edgecolor=COLORS[0] if block.part == OUTPUT else "#444444",
            linewidth=1.2 if block.part == OUTPUT else 0.8,
            zorder=2,
        )
    )
    lines = [*block.lines]
    if block.repeats > 1:
        lines[0] += f"  × {block.repeats}"
    if block.part == BACKBONE:
        lines.append("×".join(map(str, block.shapes[0])))
    size = _FONT + 2 if block.is_join else min(_FONT, _FONT * 22 / max(map(len, lines)))
    text = "\n".join(lines)
    axes.text(x, y, text, fontsize=size, ha="center", va="center", linespacing=1.15, zorder=3)
