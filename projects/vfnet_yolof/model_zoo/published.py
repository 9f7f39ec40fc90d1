"""The result rows that the papers and their authors' repositories print, from ``published.csv``.

The one place of these figures; what else shows them reads them here. "vfnet", "gfl" and "yolof" are
the papers ("readme-1" and "readme-2" the tables of VarifocalNet's README), "repositories" are lists
of models that no paper prints. YOLOF's table 6, of memory and time, has no AP and is left out.
"""

from __future__ import annotations

import csv
import functools
from importlib.resources import files
from typing import NamedTuple

VAL, TEST_DEV = "val", "test-dev"
_DRIVE = "https://drive.google.com/file/d/{}/view"


class PublishedRow(NamedTuple):
    """A row as it is printed; AP in percent, None where none is printed.

    Attributes:
        paper, table: e.g. "vfnet", "3"; see :func:`tables`.
        label: method and what sets the row apart.
        config: name in ``configs/`` without its ending; None where there is none.
        evaluated_on: "val" (val2017) or "test-dev".
        ap, ap50, ap75, aps, apm, apl: COCO's measures.
        fps: images a second on :attr:`gpu`, as printed. gpu: "" where it is not known.
        gflops: of an image, in 10^9; YOLOF's paper counts one for each multiply-add, on the first
            100 images of val2017.
        quoted: whether the table quotes AP of others' work.
        weights: page where the authors publish this very row's file, or "".
        note: what has to be known of the row, or "".
        also: further configs of this row, as other code or another reading has it.
    """

    paper: str
    table: str
    label: str
    config: str | None
    evaluated_on: str
    ap: float | None
    ap50: float | None
    ap75: float | None
    aps: float | None
    apm: float | None
    apl: float | None
    fps: float | None
    gflops: float | None
    gpu: str
    quoted: bool
    weights: str
    note: str
    also: tuple[str, ...]

    @property
    def configs(self) -> tuple[str, ...]:
        """Everything in ``configs/`` that is meant to reach this row."""
        return () if self.config is None else (self.config, *self.also)


@functools.cache
def all_rows() -> tuple[PublishedRow, ...]:
    """Everything that is published, in the order of papers and tables."""
    text = (files(__package__) / "published.csv").read_text(encoding="utf-8")
    return tuple(_row(*fields) for fields in list(csv.reader(text.splitlines()))[1:])


def _row(paper: str, table: str, label: str, config: str, on: str, *rest: str) -> PublishedRow:
    *figures, gpu, quoted, weights, note = rest
    first, *also = (name.strip() for name in config.split(";"))
    numbers = (float(figure) if figure else None for figure in figures)
    page = _DRIVE.format(weights) if weights else ""
    start = (paper, table, label, first or None, on)
    return PublishedRow._make((*start, *numbers, gpu, bool(quoted), page, note, tuple(also)))


def tables() -> dict[str, tuple[str, ...]]:
    """Names of the tables, by paper."""
    names: dict[str, dict[str, None]] = {}
    for row in all_rows():
        names.setdefault(row.paper, {})[row.table] = None
    return {paper: tuple(found) for paper, found in names.items()}


def rows(paper: str, table: str) -> tuple[PublishedRow, ...]:
    """The rows of one table.

    Raises:
        KeyError: no such table.
    """
    found = tuple(row for row in all_rows() if (row.paper, row.table) == (paper, table))
    if not found:
        known = "; ".join(f"{name}: {', '.join(its)}" for name, its in tables().items())
        raise KeyError(f"No table {table!r} of {paper!r} is known; there are {known}")
    return found


def published_ap(config: str, evaluated_on: str) -> float | None:
    """AP that is printed for a config, as :attr:`PublishedRow.evaluated_on` names the images."""
    for row in all_rows():
        if config in row.configs and row.evaluated_on == evaluated_on and row.ap is not None:
            return row.ap
    return None
