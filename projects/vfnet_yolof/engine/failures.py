"""Errors told to the user with the images, and to all processes before any of them acts on one.

A process that leaves on its own lets the others wait in a collective call. So whatever a process
does by itself (loading a batch, evaluating its share, writing a file) ends in an agreement, which
all of them reach whether it went well or not, and after which they go on or fail together.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ..config.options import ConfigError
from ..data.loader import DataLoadingError
from .ending import EvaluationStopped, OutputError

T = TypeVar("T")

_LONGEST = 400  # characters of another library's message
_ONE_VALUE = "more than 1 value per channel"  # torch's words for a norm with nothing to average
# Errors that the other processes raise in the same class as the one that they come from.
_KINDS = {
    kind.__name__: kind
    for kind in (ConfigError, DataLoadingError, EvaluationStopped, FloatingPointError, OutputError)
}


class ProcessFailed(RuntimeError):
    """Something went wrong in another process of the run; the message is that process's."""


class StepFailed(Exception):
    """The model or the optimizer raised an exception in a training step, which is the cause.

    The message names the exception, the iteration and the images.
    """


def agree(error: Exception | None) -> None:
    """Raise on all processes what went wrong on any.

    Each of them calls it, with None if all is well. A process keeps its own error. The others get
    the first one's message, in the same class where that is one that the engine knows, else as
    :class:`ProcessFailed`.
    """
    if comm.get_world_size() > 1:
        told = None if error is None else (type(error).__name__, str(error))
        first = next((x for x in comm.all_gather(told) if x is not None), None)
        if first is None:
            return
        error = error or _KINDS.get(first[0], ProcessFailed)(first[1])
        error.agreed = True  # type: ignore[attr-defined]  # a mark on errors of any class
    if error is not None:
        raise error


def is_agreed(error: BaseException) -> bool:
    """Whether all processes have this error or one of their own at the same place of the program.

    Losses and weights that are not finite are so everywhere.
    """
    return getattr(error, "agreed", False) or isinstance(error, FloatingPointError)


def together(action: Callable[[], T]) -> T:
    """Result of ``action()`` on every process; if it fails on any, the error on all."""
    try:
        result = action()
    except Exception as error:
        agree(error)
        raise
    agree(None)
    return result


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
    """Whether the flag is set on any process; cheap enough for every step."""
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


def names_images(step: Callable[..., T]) -> Callable[..., T]:
    """Decorator of a method (batch, iteration, ...) that turns its errors into `StepFailed`.

    Those that speak of the configuration, of other processes, or of losses and gradients that are
    not finite have their own messages and stay as they are.
    """

    @functools.wraps(step)
    def named(self: Any, batch: Sequence[Mapping[str, Any]], iteration: int, **options: Any) -> T:
        try:
            return step(self, batch, iteration, **options)
        except (ConfigError, dist.DistError):
            raise
        except Exception as error:
            if has_lost_a_process(error):
                raise
            if isinstance(error, FloatingPointError) and f"iteration {iteration}" in str(error):
                raise  # the step's own; a model may find numbers that are not finite, too
            raise StepFailed(_describe(error, batch, iteration)) from error

    return named


def _describe(error: Exception, batch: Sequence[Mapping[str, Any]], iteration: int) -> str:
    text = textwrap.shorten(str(error).strip().rstrip("."), _LONGEST, placeholder=" ...")
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    images = ", ".join(map(_name_and_size, batch))
    return (
        f"Iteration {iteration} failed with {what}; images of the batch: {images}.{_advice(error)}"
    )


def file_name(inputs: Mapping[str, Any]) -> str:
    """The image's file, as messages name it."""
    return str(inputs.get("file_name", "an image without file_name"))


def _name_and_size(inputs: Mapping[str, Any]) -> str:
    """File, and size as the model sees the image."""
    size: Sequence[int] = getattr(inputs.get("image"), "shape", ())
    name = file_name(inputs)
    return f"{name} ({size[-1]} x {size[-2]} px)" if len(size) >= 2 else name


def _advice(error: Exception) -> str:
    if _ONE_VALUE in str(error):
        return (
            " A norm has a single value to average where the feature map of a single image has "
            "one cell: use larger images (dataloader.train.mapper.augmentations), more of them at "
            "once (dataloader.train.total_batch_size, train.accumulate), or another norm."
        )
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return " train.accumulate=K computes a batch in K parts, which need less memory."
    return ""
