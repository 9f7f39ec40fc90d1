"""How a run ends: exit statuses, and errors that say what became of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_FAILED = 1  # training came upon a broken picture, a NaN, or an error nobody foresaw
EXIT_REFUSED = 2  # arguments, config, data or checkpoint cannot be right; nothing was trained
EXIT_EVALUATION = 3  # trained to the end, weights saved, but the last evaluation failed
EXIT_OUTPUT = 4  # something could not be written; checkpoints written before are whole
EXIT_SIGNAL = 128  # plus the number of the signal that asked to stop; a checkpoint was written


class OutputError(RuntimeError):
    """Something could not be written; the message names the path and the cause."""


class EvaluationFailed(RuntimeError):
    """The last evaluation of a run failed; training is complete and its weights are saved."""


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around whatever writes to ``path``.

    Raises:
        OutputError: for an OSError inside.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"Cannot write {os.fspath(path)}: {cause(error, path)}.") from error


def cause(error: OSError, known: str | os.PathLike[str] = "") -> str:
    """What the operating system says, and of which file, unless that is the ``known`` one."""
    reason = error.strerror or str(error) or type(error).__name__
    file = error.filename
    return reason if file is None or str(file) == os.fspath(known) else f"{reason} ({file})"
