"""What ``metrics.json`` says of a run: its losses, its speed, its evaluations."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

Series = dict[str, tuple[list[int], list[float]]]  # iterations and values, by the metric's name


@dataclass
class Measured:
    """The figures of one run, over all of its sessions.

    Attributes:
        losses: total_loss, its parts, and the validation's as ``val_loss/...``.
        evaluations: metrics by the iteration after which they were measured.
        seconds: by the iteration of the report, how long an iteration took.
    """

    losses: Series = field(default_factory=dict)
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Iterations and values of a metric of the evaluations."""
        found = [(i, values[metric]) for i, values in self.evaluations.items() if metric in values]
        return [i for i, _ in found], [value for _, value in found]

    def evaluation_at(self, iteration: int, metric: str, value: float) -> dict[str, float]:
        """All metrics of the evaluation after an iteration that had this value.

        At the end of an earlier session it has the next iteration's number.
        """
        for number in (iteration, iteration + 1):
            values = self.evaluations.get(number, {})
            if values.get(metric) == value:
                return values
        return {}

    @property
    def training_seconds(self) -> float:
        """Of all iterations, without evaluations and checkpoints."""
        total, before = 0.0, -1
        for iteration, seconds in sorted(self.seconds.items()):
            total += seconds * (iteration - before)
            before = iteration
        return total


def read_metrics(path: Path, iterations_done: int) -> Measured:
    """Read ``metrics.json``; lines that are not whole, and evaluations made later, are left out.

    Args:
        iterations_done: of the run. The evaluation at its end, which has this number in the file,
            gets that of the last iteration, as the others have it.
    """
    measured = Measured()
    if not path.is_file():
        return measured
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            iteration = int(values.pop("iteration"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if "evaluated" not in values:
            _add(measured, min(iteration, iterations_done - 1), values)
    measured.evaluations = dict(sorted(measured.evaluations.items()))
    return measured


def _add(measured: Measured, iteration: int, values: dict[str, object]) -> None:
    for name, value in values.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            continue
        if name == "time":
            measured.seconds[iteration] = value
        elif "loss" in name:
            iterations, losses = measured.losses.setdefault(name, ([], []))
            iterations.append(iteration)
            losses.append(value)
        if "/" in name:
            measured.evaluations.setdefault(iteration, {})[name] = value
