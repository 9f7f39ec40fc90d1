"""What a training or an evaluation shows on the console, which is less than its log file has."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Sequence

from ..utils.quiet import log_warnings

_LINES = 24  # of one message; tables of many classes are longer
# Loggers of Detectron2 whose messages repeat what is said elsewhere, or are for programs.
_FILE_ONLY = ("detectron2.data.build", "detectron2.data.common", "detectron2.evaluation.testing")


def shorten_console(loggers: Sequence[logging.Logger]) -> None:
    """Leave tracebacks, long tables and Detectron2's asides to the log file.

    Warnings of other packages go there as well, see :mod:`..utils.quiet`.
    """
    files: dict[str, logging.Handler] = {}
    for handler in (handler for logger in loggers for handler in logger.handlers):
        stream = getattr(handler, "stream", None)
        if stream not in (sys.stdout, sys.stderr):
            files.setdefault(str(getattr(stream, "name", "")), handler)
        elif handler.formatter is not None and not isinstance(handler.formatter, _Short):
            handler.setFormatter(_Short(handler.formatter))
            handler.addFilter(_is_for_console)
    log_warnings(handler for name, handler in files.items() if name)


def _is_for_console(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or record.name not in _FILE_ONLY


class _Short(logging.Formatter):
    """Another formatter's text, without tracebacks and the end of long tables."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)  # other handlers format it, too
        record.exc_info = record.exc_text = None
        lines = self._formatter.format(record).splitlines()
        if len(lines) > _LINES:
            lines[_LINES:] = [f"... ({len(lines) - _LINES} more lines in log.txt)"]
        return "\n".join(lines)
