"""How a run ends: exit statuses, and errors that say what became of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT_FAILED = 1  # training came upon a broken picture, a NaN, or an error nobody foresaw
EXIT_REFUSED = 2  # arguments, config, data or checkpoint cannot be right; nothing was trained
EXIT_EVALUATION = 3  # trained to the end, weights saved, but the last evaluation failed
EXIT_OUTPUT = 4  # something could not be written; checkpoints written before are whole
EXIT_SIGNAL = 128  # plus the number of the signal that asked to stop; a checkpoint was written


class OutputError(RuntimeError):
    """Something could not be written; the message names the path and the cause."""


class EvaluationFailed(RuntimeError):
    """The last evaluation of a run failed; training is complete and its weights are saved."""


class EvaluationStopped(Exception):
    """An evaluation was given up because the run was asked to stop."""


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around whatever writes to ``path``.

    Raises:
        OutputError: for an OSError inside, also where another error has taken its place, as in
            ``torch.save``.
    """
    try:
        yield
    except OutputError:
        raise
    except (OSError, RuntimeError) as error:
        first = _system_error(error)
        if first is None:
            raise
        text = str(first)  # some name path and cause themselves
        if text.startswith("[Errno"):
            text = f"Cannot write {os.fspath(path)}: {cause(first, path)}."
        raise OutputError(text) from error


def _system_error(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def cause(error: OSError, known: str | os.PathLike[str] = "") -> str:
    """What the operating system says, and of which file, unless that is the ``known`` one."""
    reason = error.strerror or str(error) or type(error).__name__
    file = error.filename
    return reason if file is None or str(file) == os.fspath(known) else f"{reason} ({file})"


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Make the output folder and try to write into it, before hours have gone by.

    Raises:
        OutputError: names the folder and why not.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Permissions alone do not tell: disks are full, file systems read-only, quotas used up.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-") as file:
            file.write(b"x" * 4096)
            file.flush()
