"""What the detectors of config files cost, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from ..config.inference import read_inference_config
from ..config.yaml_files import Trust
from .compare import write_text
from .cost import Cost, build_without_memory, count


def analyze(
    config: str,
    size: tuple[int, int],
    overrides: Sequence[str] = (),
    trust: Trust | None = None,
) -> Cost:
    """Cost of the detector of a config file; arguments as of ``tools/analyze_model.py``.

    Raises:
        FileNotFoundError, ValueError, TypeError: no such file, a wrong override, or no detector
            whose parts can be told apart; the message names it.
    """
    build = read_inference_config(config, overrides, trust).build_model
    try:
        return count(build_without_memory(build), size)
    except TypeError as error:
        raise TypeError(f"{config}: {error}") from error


def table(costs: Mapping[str, Cost]) -> str:
    """Markdown: millions of parameters, 10^9 multiply-adds of each part, anchors or locations."""
    rows = [
        [
            name,
            f"{cost.parameters / 1e6:.2f}",
            *(f"{part.multiply_adds / 1e9:.1f}" for part in cost.parts.values()),
            f"{cost.multiply_adds / 1e9:.1f}",
            f"{sum(cost.anchors):,}" if cost.anchors else "not known",
        ]
        for name, cost in costs.items()
    ]
    figures = ["parameters (M)", "backbone (G)", "neck (G)", "head (G)", "total (G)", "anchors"]
    align = ["left"] + ["right"] * len(figures)
    return tabulate(rows, ["config", *figures], "pipe", disable_numparse=True, colalign=align)


def report(
    configs: Sequence[str],
    size: tuple[int, int],
    overrides: Sequence[str] = (),
    trust: Trust | None = None,
    json_file: str | None = None,
) -> str:
    """The table of several configs; all numbers are written to ``json_file``, if there is one.

    Raises:
        OSError, ValueError, TypeError: as of :func:`analyze`, or the file cannot be written.
    """
    costs = {config: analyze(config, size, overrides, trust) for config in configs}
    if json_file:
        content = {config: cost.as_dict() for config, cost in costs.items()}
        text = json.dumps({"size": list(size), "configs": content}, indent=2)
        write_text(Path(json_file), text + "\n")
    return table(costs)
