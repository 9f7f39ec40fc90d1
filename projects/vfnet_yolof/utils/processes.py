"""What a fork takes from a process that has computed: torch's threads.

OpenMP, which torch computes with on a CPU, keeps a team of threads for each thread that has asked
it to compute. A fork copies only the thread that calls it; that one still counts on its team, and
with GNU's library (libgomp) waits for it for ever. Threads that are started after the fork get
teams of their own, and so does a process that ``spawn`` starts.
"""

from __future__ import annotations

import os
import threading

import torch


class _Team(threading.local):
    """Of the present thread; a forked process has that of the thread that forked."""

    pid: int | None = None  # the process in which it first computed with several threads


_team = _Team()


def require_own_threads() -> None:
    """To be called before torch computes.

    It knows of what was computed after an earlier call alone, not of a program's other use of
    torch.

    Raises:
        RuntimeError: this is a forked process and would wait for threads that it does not have.
    """
    if torch.get_num_threads() == 1:
        return
    pid = os.getpid()
    if _team.pid is None:
        _team.pid = pid
    elif _team.pid != pid:
        raise RuntimeError(
            f"Process {pid} was forked from process {_team.pid} after a predictor had computed "
            "there with several threads, and would wait for them for ever: start processes with "
            "multiprocessing's spawn method, or call torch.set_num_threads(1) in the new process "
            "before it predicts, or make the first predictor after the fork."
        )
