"""Divisors of losses, the same on every worker."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.distributed as dist
from detectron2.utils.comm import get_world_size
from torch import Tensor

_alone: ContextVar[bool] = ContextVar("normalizers_of_one_worker", default=False)


@contextmanager
def each_worker_alone() -> Iterator[None]:
    """Divisors are this worker's own inside: for batches whose number differs between workers."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def synced_mean(value: Tensor, minimum: float = 1.0) -> Tensor:
    """Mean of ``value`` over all workers, at least ``minimum``; float32, without gradient.

    Call it on every rank in every step, whatever the data: a collective that one rank skips
    stops all others for ever. (In evaluation, see :func:`each_worker_alone`.)
    """
    value = value.detach().float().clone()
    world_size = get_world_size()
    if world_size > 1 and not _alone.get():
        dist.all_reduce(value)
        value /= world_size
    return value.clamp(min=minimum)
