"""Sharing a CPU with other programs: how torch's threads wait, and how many they are.

On a CPU torch computes with OpenMP; its wheels for Linux bring GNU's library (libgomp). An
operator's work is cut into equal parts, one for each thread, and all threads wait for the last one.
A thread that waits keeps its core busy for milliseconds unless it is told to sleep, so that where
another program has taken a core, the other core goes to a thread that waits instead of one that
computes.

The commands call :func:`prepare` before torch is imported, and :func:`use_free_cores` before they
compute. ``import vfnet_yolof`` changes nothing. A program of its own does the same by ::

    from vfnet_yolof.utils import threads

    threads.prepare()  # before anything imports torch
    from vfnet_yolof import Predictor

What the user has set in the environment always stays as it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import NamedTuple

# Variables of OpenMP's libraries and of MKL: how threads wait, and how many there are or where.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
NUMBER = (
    *("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "MKL_NUM_THREADS", "MKL_DYNAMIC"),
    *("OMP_PLACES", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"),
)
# A wait of about 20 microseconds goes without sleep: most are shorter where all cores are free, and
# waking a thread takes about as long.
SETTING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
_STAT = Path("/proc/stat")
_SHORTEST = 0.5  # seconds to measure for: the system counts in hundredths


class Sample(NamedTuple):
    """Seconds on a clock, and of computing: of all programs on our cores, and of this process."""

    clock: float
    all: float
    own: float


_begin: Sample | None = None


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads sleep while they wait, and begin to measure what other programs take.

    To be called before torch is imported: OpenMP reads the variables then. Processes that this one
    starts inherit them.
    """
    global _begin
    if not any(name in environment for name in WAITING):
        environment.update(SETTING)
    _begin = _sample()


def is_number_set() -> bool:
    """Whether the user has said how many threads there are."""
    return any(name in os.environ for name in NUMBER)


def others() -> float | None:
    """Cores that other programs have kept busy since :func:`prepare`.

    Programs of a lower priority (``nice``) are left out, since they make way. None where that is
    not known: too short a time, another system than Linux, or :func:`prepare` was not called.
    """
    now = _sample()
    if _begin is None or now is None or now.clock - _begin.clock < _SHORTEST:
        return None
    taken = (now.all - _begin.all) - (now.own - _begin.own)
    return max(0.0, taken / (now.clock - _begin.clock))


def use_free_cores(fixed: str = "") -> str:
    """Compute with as many threads as there are cores that other programs leave free.

    Args:
        fixed: why the number must not depend on other programs; it stays as it is then.

    Returns:
        a sentence for the log, or "" where all cores are free or the user has set a number.
    """
    import torch

    threads, busy = torch.get_num_threads(), others()
    if busy is None or is_number_set():
        return ""
    cores = len(_cores())
    free = min(threads, max(1, round(cores - busy)))
    if free == threads:
        return ""
    said = f"Other programs keep {busy:.1f} of {cores} cores busy"
    if fixed:
        return (
            f"{said}. {fixed}, all {threads} threads compute, since their number changes how sums "
            f"are rounded: OMP_NUM_THREADS={free} would be faster while that lasts."
        )
    torch.set_num_threads(free)
    return (
        f"{said}, so {free} of {threads} threads compute. Their number changes how sums are "
        "rounded; OMP_NUM_THREADS=N sets it."
    )


def share_among(processes: int) -> None:
    """One of several processes that compute at once on this machine takes its part of the cores."""
    import torch

    if processes > 1 and not is_number_set():
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))


def _cores() -> set[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _sample() -> Sample | None:
    try:
        lines = _STAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    mine = {f"cpu{number}" for number in _cores()}
    ticks = 0
    for name, *counts in map(str.split, lines):
        if name in mine:
            user, nice, system, _, _, interrupts, soft = map(int, counts[:7])
            # What a process of a lower priority takes is in `nice`; ours, if we are one ourselves.
            ticks += user + system + interrupts + soft + (nice if os.nice(0) > 0 else 0)
    used = os.times()
    own = used.user + used.system + used.children_user + used.children_system
    return Sample(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own)
