"""A line on the terminal that shows how far a training is, below what the log says."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from detectron2.engine import HookBase
from detectron2.utils import comm
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from .evaluation_hooks import BestCheckpointHook
from .trainer import Trainer

_LOGGERS = ("detectron2", "fvcore", "vfnet_yolof")
_WINDOW = 20  # iterations whose median loss is shown, as in the log


def on_terminal() -> bool:
    """Whether somebody watches: both outputs of the main process are a terminal with a cursor."""
    return (
        comm.is_main_process()
        and sys.stdout.isatty()
        and sys.stderr.isatty()
        and os.environ.get("TERM") != "dumb"
    )


@contextmanager
def progress_line(trainer: Trainer, start: int, max_iter: int) -> Iterator[None]:
    """Show iteration, epoch, time left, loss and AP so far in one line inside; on terminals only.

    What is logged meanwhile is written above the line. The log's own reports of progress go to the
    file alone, where they are as they are without a terminal.
    """
    if not on_terminal():
        yield
        return
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    bar = tqdm(total=max_iter, initial=start, unit="it", dynamic_ncols=True, desc="training")
    with bar, logging_redirect_tqdm(loggers), _without_reports(loggers):
        trainer.register_hooks([_ProgressHook(bar)])
        yield


@contextmanager
def _without_reports(loggers: Sequence[logging.Logger]) -> Iterator[None]:
    handlers = {
        handler
        for logger in loggers
        for handler in logger.handlers
        if getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
    }
    for handler in handlers:
        handler.addFilter(_is_no_report)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return not getattr(record, "progress", False)


class _ProgressHook(HookBase):
    """Moves the line on after each iteration; it must come after the hooks that evaluate."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def after_step(self) -> None:
        self._bar.set_description(described(self.trainer), refresh=False)
        self._bar.update(1)


def described(trainer: Trainer) -> str:
    """Epoch, loss and, once it is measured, the metric that chooses the best checkpoint."""
    parts = []
    if per_epoch := getattr(trainer.data_loader, "iterations_per_epoch", None):
        parts.append(f"epoch {trainer.iterations_done / per_epoch:.2f}")
    parts.append(f"loss {trainer.storage.history('total_loss').median(_WINDOW):.4g}")
    latest = trainer.storage.latest()
    for hook in trainer.hooks_of(BestCheckpointHook):
        if hook.metric in latest and hook.best is not None:
            name = hook.metric.removeprefix("bbox/")
            parts.append(f"{name} {latest[hook.metric][0]:.4g} (best {hook.best:.4g})")
    return ", ".join(parts)
