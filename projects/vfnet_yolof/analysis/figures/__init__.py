"""The figures of the papers, of any trained detector and data set; one function for each.

All are called alike: with the detectors that were named, none where a figure is about none, and
the options. What they return is written by :func:`write`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ...config.options import ConfigError
from ...drawing.charts import FORMATS, file_bytes
from ...utils.files import write_atomically


@dataclass(frozen=True)
class Options:
    """What the command line says beside models and data; each figure uses some.

    Attributes:
        betas: exponents of the quality focal loss. quality: its label, in [0, 1].
        target: a distance to predict, in bins.
        image: number of a test image, from 0. score_threshold: of what is drawn.
        count: how many are drawn.
        points: JSON files of measurements. published: papers whose points are added.
        against: "time" or "multiply-adds".
    """

    betas: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    quality: float = 0.5
    target: float = 5.6
    image: int = 0
    score_threshold: float = 0.3
    count: int = 8
    points: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    against: str = "time"


class Drawn(NamedTuple):
    """A figure as it is handed over.

    Attributes:
        figure: of Matplotlib, made by :mod:`...drawing.charts`.
        numbers: what it shows, as JSON can hold it.
        sentence: what is seen, for the console.
    """

    figure: Figure
    numbers: dict[str, Any]
    sentence: str


def checked_output(output: str) -> Path:
    """The path of a figure.

    Raises:
        ConfigError: it has another ending than the formats that figures are written in.
    """
    path = Path(output)
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise ConfigError(
            f"--output {output}: figures are PNG or SVG; end the name with .png or .svg."
        )
    return path


def write(drawn: Drawn, path: Path, facts: dict[str, Any]) -> Path:
    """Write the figure and, beside it, its numbers as JSON; returns the path of these.

    Args:
        path: as :func:`checked_output` gives it.
        facts: how it was made, which goes into the JSON as well.

    Raises:
        FileWriteError: one of the files cannot be written.
    """
    content = json.dumps({**facts, **drawn.numbers}, indent=2, allow_nan=False) + "\n"
    image = file_bytes(drawn.figure, path.suffix.lower().lstrip("."))
    numbers = path.with_suffix(".json")
    write_atomically(path, lambda file: file.write(image))
    write_atomically(numbers, lambda file: file.write(content.encode()))
    return numbers
