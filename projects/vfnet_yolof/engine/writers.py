"""Writers of a run's metrics: console, ``metrics.json``, TensorBoard."""

from __future__ import annotations

import datetime
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.events import EventWriter, TensorboardXWriter, get_event_storage

from .ending import writing

logger = logging.getLogger(f"detectron2.{__name__}")

METRICS = "metrics.json"
_WINDOW = 20  # iterations whose median is shown for noisy values


def build_writers(
    output_dir: str, max_iter: int, iterations_per_epoch: float | None = None
) -> list[EventWriter]:
    """The writers of a run, for the main process."""
    folder = Path(output_dir)
    console = ConsoleWriter(max_iter, iterations_per_epoch)
    return [console, JSONLinesWriter(folder / METRICS), TensorBoardWriter(folder)]


def append_metrics(path: Path, values: Mapping[str, Any]) -> None:
    """Append a line of strict JSON, which has no NaN and no infinity: they become null.

    Raises:
        OutputError: the line could not be written.
    """
    plain = {k: v if _is_plain(v) else None for k, v in values.items()}
    line = json.dumps(plain, sort_keys=True, allow_nan=False) + "\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _is_plain(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


class JSONLinesWriter(EventWriter):
    """A line for each iteration with new values, as Detectron2's writer, but in strict JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = -1  # the last iteration in the file

    def write(self) -> None:
        lines: dict[int, dict[str, Any]] = {}
        latest = get_event_storage().latest_with_smoothing_hint(_WINDOW)
        for name, (value, iteration) in latest.items():
            if iteration > self._written:
                lines.setdefault(iteration, {"iteration": iteration})[name] = value
        for iteration in sorted(lines):
            append_metrics(self._path, lines[iteration])
            self._written = iteration


class ConsoleWriter(EventWriter):
    """Logs a line with time left, epoch, losses, learning rate, times and memory.

    Training losses are medians of the last iterations. Values that are not measured in each
    iteration, such as the validation loss and AP, are shown once, as they are. The records are
    marked with ``progress``, since a terminal has a line of its own for it, see :mod:`.progress`.

    Args:
        max_iter: of the run.
        iterations_per_epoch: None where the loader does not know.
    """

    def __init__(self, max_iter: int, iterations_per_epoch: float | None = None) -> None:
        self._max_iter, self._per_epoch = max_iter, iterations_per_epoch
        self._written = -1

    def write(self) -> None:
        storage = get_event_storage()
        iteration = storage.iter
        if iteration == self._max_iter:  # nothing was trained since the line before
            return
        latest, hints = storage.latest_with_smoothing_hint(_WINDOW), storage.smoothing_hints()
        losses = [
            f"{name}: {value:.4g}"
            for name, (value, measured) in latest.items()
            if ("loss" in name and hints[name]) or (_is_headline(name) and measured > self._written)
        ]
        parts = [f"iter: {iteration}", *losses]
        if self._per_epoch:
            parts.insert(1, f"epoch: {(iteration + 1) / self._per_epoch:.4g}")
        histories = storage.histories()
        if "time" in histories:
            left = histories["time"].median(1000) * (self._max_iter - iteration - 1)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            parts.insert(0, f"eta: {datetime.timedelta(seconds=int(left))}")
            parts.append(f"time: {histories['time'].global_avg():.4f}")
        else:  # the first iterations are no measure
            parts.insert(0, "eta: N/A")
        if "data_time" in histories:
            parts.append(f"data_time: {histories['data_time'].avg(_WINDOW):.4f}")
        if "lr" in latest:
            parts.append(f"lr: {latest['lr'][0]:.5g}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        logger.info("  ".join(parts), extra={"progress": True})
        self._written = iteration


def _is_headline(name: str) -> bool:
    """Whether a metric is the AP, or one of the validation losses; not that of a class."""
    return name.endswith("/AP") or ("/" in name and "loss" in name)


class TensorBoardWriter(TensorboardXWriter):
    """Detectron2's, with errors that name the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with writing(folder):
            super().__init__(str(folder), _WINDOW)

    def write(self) -> None:
        with writing(self._folder):
            super().write()

    def close(self) -> None:
        with writing(self._folder):
            super().close()
