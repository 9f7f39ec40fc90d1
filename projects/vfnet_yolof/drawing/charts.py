"""What all charts share: figures without a display, lines told apart by more than colour, files."""

from __future__ import annotations

import io
import warnings
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .curves import COLORS

DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#777777"
FORMATS = ("png", "svg")


def new_figure(width: float = 5.6, height: float = 3.8) -> Figure:
    """An empty figure of that size in inches, with no display and no state that others share."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(width: float = 5.6, height: float = 3.8) -> tuple[Figure, Axes]:
    """A figure with a single pair of axes."""
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    bare(axes)
    return figure, axes


def bare(axes: Axes) -> None:
    """Take away the frame on the sides that have no numbers."""
    axes.spines[["top", "right"]].set_visible(False)


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes, so that neither alone has to be told apart; the first is the thick one."""
    return {
        "color": "#000000" if number == 0 else COLORS[(number - 1) % len(COLORS)],
        "linestyle": DASHES[number % len(DASHES)],
        "linewidth": 2.4 if number == 0 else 1.5,
    }


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Names of both axes, a grid, and a legend of what has a label."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, framealpha=0.8)


def plain(name: str) -> str:
    r"""Matplotlib takes text between dollars for a formula, and hides labels that begin with _."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def file_bytes(figure: Figure, kind: str, salt: str = "figure") -> bytes:
    """The figure as a file, the same bytes for the same content.

    Args:
        kind: one of ``FORMATS``. salt: of the names inside an SVG.
    """
    file = io.BytesIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}),
        warnings.catch_warnings(),
    ):
        # In an SVG text stays text, so the browser has the glyphs that Matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(file, format=kind, metadata=metadata, dpi=150)
    return file.getvalue()
