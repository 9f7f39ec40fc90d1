"""Memory that a process takes, measured in one that does nothing else."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``function`` returns, called in a new process that ends with it.

    Args:
        function: of a module, as the process finds it by its name.

    Raises:
        ValueError: the process has died, as it does where memory is short.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            given = ", ".join(str(x) for x in args)
            raise ValueError(
                f"the process that measures the memory of {given} has died; if memory was short, "
                "choose a smaller --batch or --size"
            ) from error


def peak_resident_mib() -> float:
    """Largest resident memory of this process so far.

    Not from ``getrusage``, where a new process starts with the peak of the one that made it.

    Raises:
        ValueError: this system has no ``/proc``.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError("the memory of a process is measured on Linux only") from error
    (line,) = (x for x in lines if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
