"""What goes wrong on one process, told to all before any of them acts on it.

A process that leaves on its own lets the others wait in a collective call. So whatever a process
does by itself (loading a batch, evaluating its share, writing a file) ends in an agreement, which
all of them reach whether it went well or not, and after which they go on or fail together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ..config.options import ConfigError
from ..data.loader import DataLoadingError
from .ending import EvaluationStopped, OutputError

T = TypeVar("T")


class ProcessFailed(RuntimeError):
    """Something went wrong in another process of the run; the message is that process's."""


_KINDS = {
    kind.__name__: kind
    for kind in (ConfigError, DataLoadingError, EvaluationStopped, FloatingPointError, OutputError)
}


def agree(error: Exception | None) -> None:
    """Raise on all processes what went wrong on any; each calls it, with None if all is well.

    A process keeps its own error. The others get the first one's message, in the same class where
    that is one that the engine knows, else as :class:`ProcessFailed`.
    """
    if comm.get_world_size() > 1:
        told = None if error is None else (type(error).__name__, str(error))
        first = next((x for x in comm.all_gather(told) if x is not None), None)
        if first is None:
            return
        error = error or _KINDS.get(first[0], ProcessFailed)(first[1])
        error.agreed = True  # type: ignore[attr-defined]
    if error is not None:
        raise error


def is_agreed(error: BaseException) -> bool:
    """All processes have this error or one of their own at the same place of the program.

    Losses and weights that are not finite are so everywhere.
    """
    return getattr(error, "agreed", False) or isinstance(error, FloatingPointError)


def together(action: Callable[[], T]) -> T:
    """``action()`` on every process; if it fails on any, the error on all."""
    error, result = None, None
    try:
        result = action()
    except Exception as caught:
        error = caught
    agree(error)
    return result  # type: ignore[return-value]


def agreed_batches(batches: Iterator[T]) -> Iterator[T]:
    """The same batches, as many on every process; what fails on one of them is raised on all."""
    while True:
        error, batch = None, None
        try:
            batch = next(batches, None)
        except Exception as caught:
            error = caught
        if on_any(error is not None):
            agree(error)
        if batch is None:
            return
        yield batch


def on_any(flag: bool) -> bool:
    """Whether it is so on any process; cheap enough for every step."""
    if comm.get_world_size() == 1:
        return flag
    value = torch.tensor(float(flag))
    dist.all_reduce(value, group=_host_group(dist.group.WORLD))
    return bool(value > 0)


@functools.lru_cache(maxsize=1)
def _host_group(world: Any) -> Any:
    """A group that talks without the GPUs, which have other work queued."""
    return world if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def has_lost_a_process(error: BaseException) -> bool:
    """Whether a collective call failed because another process had left."""
    if comm.get_world_size() == 1:
        return False
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("gloo" in text or "onnection closed" in text)
