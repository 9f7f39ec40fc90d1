"""How a run ends: exit statuses, errors that say what became of it, signals that stop it."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

EXIT_FAILED = 1  # training came upon a broken image, a NaN, or an error nobody foresaw
EXIT_REFUSED = 2  # arguments, config, data or checkpoint cannot be right; nothing was trained
EXIT_EVALUATION = 3  # trained to the end, weights saved, but the last evaluation failed
EXIT_OUTPUT = 4  # something could not be written; checkpoints written before are whole
EXIT_SIGNAL = 128  # plus the number of the signal that asked to stop; a checkpoint was written

# SIGTERM: torchrun, Slurm and most others; SIGHUP: a terminal that closes; SIGUSR1: Slurm's
# --signal. Windows has not all of them.
STOPPING: tuple[int, ...] = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
)


class OutputError(RuntimeError):
    """Something could not be written; the message names the path and the cause."""


class EvaluationFailed(RuntimeError):
    """The last evaluation of a run failed; training is complete and its weights are saved."""


class EvaluationStopped(Exception):
    """An evaluation was given up because the run was asked to stop."""


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Tell errors in writing to ``path``, which is done inside, as such.

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


class StopRequest:
    """A signal handler that asks a run to stop; a second Ctrl-C stops it at once.

    Attributes:
        signum: of the first signal; 0 before.
    """

    signum = 0
    _at = 0.0

    def __init__(self, stop: Callable[[], None]) -> None:
        """``stop`` is called by the first signal, in the main thread."""
        self._stop = stop

    def __call__(self, signum: int, frame: Any) -> None:
        # Launchers pass a signal on to processes that the terminal has told already, or send one
        # of their own after it. Only a second Ctrl-C is meant to stop at once.
        if not self.signum:
            self.signum, self._at = signum, time.monotonic()
            text = f"{signal_name(signum)}: stopping after this iteration; Ctrl-C stops at once.\n"
            os.write(2, text.encode())  # logging and print may be in use below this handler
            self._stop()
        elif signum == signal.SIGINT and time.monotonic() - self._at > 1.0:
            signal.signal(signal.SIGINT, _stop_at_once)
            _stop_at_once(signum, frame)


_stopped_at_once = False  # by Ctrl-C, in this process


def _stop_at_once(signum: int, frame: Any) -> NoReturn:
    global _stopped_at_once
    _stopped_at_once = True
    raise KeyboardInterrupt


@contextmanager
def ctrl_c_kept() -> Iterator[None]:
    """Let Ctrl-C end what is inside as such, whatever it falls into.

    Compiled modules that are being imported turn KeyboardInterrupt into errors of their own, such
    as a TypeError without a reason; the user would read of a fault where there is none.

    Raises:
        KeyboardInterrupt: also in the place of an error that came after Ctrl-C, unless
            :func:`ctrl_c_answered`.
    """
    global _stopped_at_once
    mine = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    _stopped_at_once = False  # one of before says nothing of what comes now
    if mine:
        signal.signal(signal.SIGINT, _stop_at_once)
    try:
        yield
    except Exception as error:
        if _stopped_at_once:
            raise KeyboardInterrupt from error
        raise
    finally:
        if mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def ctrl_c_answered() -> None:
    """A KeyboardInterrupt was caught and all is as meant: later errors are told as they are."""
    global _stopped_at_once
    _stopped_at_once = False


def signal_name(signum: int) -> str:
    """``Ctrl-C`` for SIGINT, else the signal's own."""
    if signum == signal.SIGINT:
        return "Ctrl-C"
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


@contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let ``handler`` handle the signals of :data:`STOPPING` inside.

    SIGHUP is left alone where it is ignored, as below ``nohup``; outside of the main thread
    nothing can be handled, and nothing is.
    """
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for signum in STOPPING:
            if signum == signal.SIGINT or signal.getsignal(signum) is not signal.SIG_IGN:
                previous[signum] = signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, before in previous.items():
            signal.signal(signum, before)
