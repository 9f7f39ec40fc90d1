"""Signals that ask a run to stop in order: Ctrl-C, and what schedulers and shells send."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# SIGTERM: torchrun, Slurm and most others; SIGHUP: a terminal that closes; SIGUSR1: Slurm's
# --signal. Windows has not all of them.
STOPPING: tuple[int, ...] = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
)


class StopRequest:
    """signum: of the signal that asked first, 0 as long as none has."""

    signum = 0
    _at = 0.0

    def __init__(self, stop: Callable[[], None]) -> None:
        """stop: called by the first signal, in the main thread."""
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
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt


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
    """Let ``handler`` have the signals of :data:`STOPPING` inside.

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
