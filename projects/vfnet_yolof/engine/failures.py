"""An exception in a training step, told with the images that it came from."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from ..config.options import ConfigError
from .agreement import has_lost_a_process

_LONGEST = 400  # characters of another library's message
_ONE_VALUE = "more than 1 value per channel"  # torch's words for a norm with nothing to average


class StepFailed(Exception):
    """The model or the optimizer raised an exception in a training step, which is the cause.

    The message names the exception, the iteration and the images.
    """


def names_images(step: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a method (batch, iteration, ...) that turns its exceptions into `StepFailed`.

    Those that speak of the configuration, of other processes, or of losses and gradients that are
    not finite have their own messages and stay as they are.
    """

    @functools.wraps(step)
    def named(self: Any, batch: Sequence[Mapping[str, Any]], iteration: int, **options: Any) -> Any:
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
    images = ", ".join(_image(x) for x in batch)
    return (
        f"Iteration {iteration} failed with {what}; images of the batch: {images}.{_advice(error)}"
    )


def _image(inputs: Mapping[str, Any]) -> str:
    """File, and size as the model sees the image."""
    name = str(inputs.get("file_name", "an image without file_name"))
    size = getattr(inputs.get("image"), "shape", ())
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
