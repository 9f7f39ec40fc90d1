"""Diagrams of detectors, drawn from the built models (as figure 3 of VFNet's paper, figures 1, 4
and 6 of GFL's, figures 2, 5, 8 and 9 of YOLOF's).

Above, the backbone and the neck, a row for each of their sizes; below, the head, from its input to
its predictions, with the losses that these learn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import nn

from ..drawing.curves import COLORS
from .architecture import BACKBONE, HEAD, NECK, Architecture, Block, architecture_of

_COLUMN, _ROW = 1.5, 0.72  # inches between the middles of neighbouring boxes
_BOX = (1.24, 0.54)
_FONT = 7.0  # points
_COLORS = {BACKBONE: "#E0E0E0", NECK: "#CFE6F5", HEAD: "#FBE3CC"}
_LEVEL, _OUTPUT = "#FFFFFF", "#D5EFE5"
_MARGIN = 0.95

Places = dict[str, tuple[float, float]]  # column, row (from the top)


def draw(model: nn.Module, size: tuple[int, int], title: str) -> tuple[Figure, Architecture]:
    """The diagram of a detector, and what is drawn in it.

    Args:
        model: as of :func:`.architecture.architecture_of`, which raises what is raised.
        size: (height, width) of the image in px, whose feature maps' sizes are drawn.
    """
    graph = architecture_of(model, size)
    above, above_places, backbone_columns = _body(graph)
    below = {**graph.part(HEAD), **_predictions(model, graph)}
    below_places = layered(below)
    columns = max(x for x, _ in [*above_places.values(), *below_places.values()])
    rows = [max(y for _, y in places.values()) + 1 for places in (above_places, below_places)]
    split = rows[0] + 0.75
    figure, axes = _page(columns, split + rows[1])
    shared = all(len(x.shapes) > 1 for x in graph.part(HEAD).values())
    headings = [
        (-0.5, -_MARGIN, f"backbone: an image of {graph.image[0]} × {graph.image[1]} px"),
        (backbone_columns - 0.5, -_MARGIN, "neck" if graph.part(NECK) else ""),
        (-0.5, split - _MARGIN, f"head{', with the same weights on all levels' if shared else ''}"),
    ]
    for x, y, text in headings:
        axes.text(x, y, text, fontsize=_FONT + 1.5, fontweight="bold", va="center")
    axes.set_title(title, fontsize=_FONT + 3, loc="left")
    _draw_blocks(axes, above, above_places)
    moved = {name: (x, y + split) for name, (x, y) in below_places.items()}
    _draw_blocks(axes, below, moved)
    return figure, graph


def _page(columns: float, rows: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_COLUMN * (columns + 1.1), _ROW * (rows + 1.1)), layout="constrained")
    FigureCanvasAgg(figure)  # no display and no state that other figures share
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.55, columns + 0.55)
    axes.set_ylim(rows - 0.4, -_MARGIN - 0.35)
    return figure, axes


def _body(graph: Architecture) -> tuple[dict[str, Block], Places, int]:
    """Backbone and neck, their places, and the number of the backbone's columns.

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
    return blocks, places, 1


def _height(block: Block) -> int:
    return block.shapes[0][1]


def layered(blocks: Mapping[str, Block]) -> Places:
    """Places from left to right, each block right of all its sources.

    An arrow over several columns keeps a place of its own in each of them, so that it passes
    between the boxes. In each column blocks have the order of their sources' rows.
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
    rows: dict[str, float] = {}
    for number in range(max(column.values()) + 1):
        names = [name for name in sources if column[name] == number]
        wanted = {
            name: sum(rows[x] for x in sources[name]) / max(1, len(sources[name]))
            for name in names
        }
        rows.update(_spread(sorted(names, key=wanted.__getitem__), wanted, blocks))
    top = min(rows.values())
    return {name: (float(column[name]), rows[name] - top) for name in rows}


def _columns(blocks: Mapping[str, Block]) -> dict[str, int]:
    """The length of the longest way to each block; what is used last stands far right."""
    column: dict[str, int] = {}
    for name, block in blocks.items():
        column[name] = 1 + max((column[x] for x in block.sources), default=-1)
    outputs = [name for name, block in blocks.items() if block.part == "output"]
    last = max(column.values())
    return {**column, **{name: last for name in outputs}}


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
        drift = sum(rows.values()) / len(rows) - sum(wanted[x] for x in names) / len(names)
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
    """The places that an arrow passes."""
    first, last = int(places[source][0]), int(places[name][0])
    between = [places.get(f"{source} > {step}") for step in range(first + 1, last)]
    return [places[source], *(x for x in between if x is not None), places[name]]


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
    style: dict[str, Any] = {"color": "#444444", "linewidth": 0.8}
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
    color = {"level": _LEVEL, "output": _OUTPUT}.get(block.part) or _COLORS[block.part]
    rounding = 0.0 if block.part == "level" else 0.04
    axes.add_patch(
        FancyBboxPatch(
            (x - half[0], y - half[1]),
            2 * half[0],
            2 * half[1],
            boxstyle=f"round,pad=0,rounding_size={rounding}",
            facecolor=color,
            edgecolor=COLORS[0] if block.part == "output" else "#444444",
            linewidth=1.2 if block.part == "output" else 0.8,
            zorder=2,
        )
    )
    lines = [*block.lines]
    if block.repeats > 1:
        lines[0] += f"  × {block.repeats}"
    if block.part == BACKBONE:
        lines[-1] += f", {block.shapes[0][0]}"
        lines.append(f"{block.shapes[0][1]} × {block.shapes[0][2]}")
    size = _FONT + 2 if block.is_join else min(_FONT, _FONT * 21 / max(map(len, lines)))
    text = "\n".join(lines)
    axes.text(x, y, text, fontsize=size, ha="center", va="center", linespacing=1.15, zorder=3)


_MEANINGS = {
    "logits": "class scores",
    "sides": "box",
    "ltrb_init": "first box",
    "sides_init": "first box",
    "deltas": "box",
    "quality_logits": "quality",
}


def _predictions(model: nn.Module, graph: Architecture) -> dict[str, Block]:
    """What the head predicts, with the form of it and what it learns from."""
    notes = {
        "logits": [_classes(model, graph), _loss(model, "cls_loss")],
        "sides": [_sides(model), "GIoU" + _side_loss(model)],
        "ltrb_init": ["4 distances", "GIoU"],
        "sides_init": ["of first points", _loss(model, "box_loss")],
        "deltas": ["4 numbers an anchor", _loss(model, "box_loss")],
        "quality_logits": ["a factor on scores", _loss(model, "quality")],
    }
    blocks = {}
    for name, sources, channels in graph.outputs:
        kept = [x for x in sources if x in graph.blocks]
        lines = [_MEANINGS.get(name, name), *notes.get(name, [f"{channels} channels"])]
        key = f"output {name}"
        blocks[key] = Block(name, "output", [x for x in lines if x], sources=dict.fromkeys(kept))
    return blocks


def _classes(model: nn.Module, graph: Architecture) -> str:
    anchors = getattr(model.head, "num_anchors", None)
    classes = f"{getattr(model, 'num_classes', '')} classes"
    return f"{anchors} anchors × {classes}" if isinstance(anchors, int) else classes


def _sides(model: nn.Module) -> str:
    representation = getattr(model.head, "representation", None)
    if representation is None:
        return "4 distances"
    channels = getattr(representation, "channels", 1)
    name = type(representation).__name__
    return f"4 × {channels}, {name}" if channels > 1 else name


def _side_loss(model: nn.Module) -> str:
    name = getattr(getattr(model.head, "representation", None), "loss_name", None)
    return f" + {name.removeprefix('loss_').upper()}" if name else ""


def _loss(model: nn.Module, name: str) -> str:
    loss = getattr(model, name, None)
    return "" if loss is None else type(loss).__name__
