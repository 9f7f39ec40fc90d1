"""Curves over a run's iterations, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

# Okabe and Ito's colours, which differ for colour-blind eyes as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

Curve = tuple[Sequence[int], Sequence[float]]  # iterations, values


def draw_curves(
    file: BinaryIO, curves: Mapping[str, Curve], y_label: str, *, marked: Sequence[str] = ()
) -> None:
    """Write one PNG with a line for each curve.

    Args:
        file: open for writing.
        curves: by the name in the legend; iterations in rising order.
        y_label: what the values are, with their unit.
        marked: names of curves with a dot at each value; those of a single value have one anyway.
    """
    # Here, since each process of a training imports this module, and few draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no display and no state that other figures share
    axes = figure.add_subplot()
    for number, (name, (iterations, values)) in enumerate(curves.items()):
        dotted = name in marked or len(values) == 1
        axes.plot(
            iterations,
            values,
            label=name.replace("$", r"\$"),
            color=COLORS[number % len(COLORS)],
            linestyle=("-", "--", ":")[number // len(COLORS) % 3],
            marker="o" if dotted else "",
            markersize=4,
        )
    axes.set_xlabel("iteration")
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.legend()
    figure.savefig(file, format="png")
