"""Normalizers of losses: the same on every worker, and for all parts of an accumulated batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from detectron2.utils.comm import get_world_size
from torch import Tensor

Normalizer = Callable[[Tensor, float], Tensor]


def synced_mean(value: Tensor, minimum: float = 1.0) -> Tensor:
    """Mean of ``value`` over all workers, at least ``minimum``; float32, without gradient.

    Every normalizer of a loss that depends on the batch goes through here: gradient accumulation
    relies on it, see :func:`whole_batch_normalizers`. ``value`` must be a sum over the images.

    Call it on every rank in every step, whatever the data: a collective that one rank skips
    stops all others for ever. (In evaluation, see :func:`local_normalizers`.)
    """
    return _normalizer.get()(value.detach().float().clone(), minimum)


def _mean_of_workers(value: Tensor, minimum: float) -> Tensor:
    world_size = get_world_size()
    if world_size > 1:
        dist.all_reduce(value)
        value /= world_size
    return value.clamp(min=minimum)


_normalizer: ContextVar[Normalizer] = ContextVar("normalizer", default=_mean_of_workers)


@contextmanager
def _use(normalizer: Normalizer) -> Iterator[None]:
    token = _normalizer.set(normalizer)
    try:
        yield
    finally:
        _normalizer.reset(token)


@contextmanager
def local_normalizers() -> Iterator[None]:
    """Each worker's normalizers are its own: where workers have different numbers of batches."""
    with _use(lambda value, minimum: value.clamp(min=minimum)):
        yield


@contextmanager
def recorded_normalizers() -> Iterator[list[Tensor]]:
    """Collect this worker's values, in the order of the calls; nothing is exchanged inside."""
    values: list[Tensor] = []

    def record(value: Tensor, minimum: float) -> Tensor:
        values.append(value)
        return value.clamp(min=minimum)

    with _use(record):
        yield values


@contextmanager
def fixed_normalizers(values: Sequence[Tensor]) -> Iterator[None]:
    """The calls inside give ``values``, one after the other, at least their own minimum."""
    remaining = iter(values)
    with _use(lambda value, minimum: next(remaining).clamp(min=minimum)):
        yield


def whole_batch_normalizers(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Normalizers of a whole batch from the recorded values of its parts; call on all workers.

    Raises:
        ValueError: nothing was recorded, or not the same number of values for each part.
    """
    counts = {len(values) for values in parts}
    if counts == {0} or len(counts) != 1:
        raise ValueError(
            "the losses of a part of a batch can only be scaled to the whole batch if the model "
            f"divides them by synced_mean, in each part alike; it called it {sorted(counts)} times"
        )
    totals = torch.stack([torch.stack(list(values)) for values in parts]).sum(0)
    return list(_mean_of_workers(totals, 0.0))
