"""Warnings of other packages are for the log file, not for the console of a command."""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterable
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any, TextIO

_VARIABLE = "VFNET_YOLOF_QUIET"  # tells it to processes that a command starts
_LOGGER = "py.warnings"
_PACKAGE = Path(__file__).resolve().parents[1]
_OF_OTHERS = ("site-packages", "dist-packages", "detectron2")  # folders on a file's path
# What is said of a use that will not do in a later version, wherever that use is.
_OF_VERSIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def keep_warnings_off_console() -> None:
    """Call it first in a command: other packages warn while they are imported.

    Nothing is changed where ``-W`` or ``PYTHONWARNINGS`` say what to do. What warns in a user's own
    file is shown as ever. The rest is kept for :func:`log_warnings`.
    """
    if not sys.warnoptions:
        os.environ[_VARIABLE] = "1"
        follow_command()


def follow_command() -> None:
    """The same in a process that such a command has started; nothing in others."""
    if _VARIABLE not in os.environ or sys.warnoptions:
        return
    logger = logging.getLogger(_LOGGER)
    if not logger.handlers:
        logger.addHandler(MemoryHandler(1000, flushLevel=logging.CRITICAL + 1))
        logger.propagate = False
    if not isinstance(warnings.showwarning, _ShowOwn):
        warnings.showwarning = _ShowOwn(warnings.showwarning)


def log_warnings(handlers: Iterable[logging.Handler]) -> None:
    """Hand what was kept, and what comes, to the handlers of a log file."""
    logger = logging.getLogger(_LOGGER)
    kept = [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]
    for handler in handlers:
        for memory in kept:
            memory.setTarget(handler)
            memory.flush()
        logger.addHandler(handler)
    for memory in kept:
        logger.removeHandler(memory)


class _ShowOwn:
    """In the place of ``warnings.showwarning``: the logger gets what other packages warn of."""

    def __init__(self, show: Callable[..., Any]) -> None:
        self._show = show

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is None and _is_of_others(str(message), category, filename):
            text = warnings.formatwarning(message, category, filename, lineno, line)
            logging.getLogger(_LOGGER).warning("%s", text.strip())
        else:
            self._show(message, category, filename, lineno, file, line)


def _is_of_others(message: str, category: type[Warning], filename: str) -> bool:
    path = Path(filename)
    if _PACKAGE in path.parents:
        # PyTorch names whoever called it: of C++ with this remark, of deprecated names without.
        return issubclass(category, _OF_VERSIONS) or "Triggered internally" in message
    library = Path(sysconfig.get_paths()["stdlib"])
    if filename.startswith("<frozen") or library in path.parents:
        return True
    return any(part in _OF_OTHERS for part in path.parts)
