"""Divisors of losses, the same on every worker."""

import torch.distributed as dist
from detectron2.utils.comm import get_world_size
from torch import Tensor


def synced_mean(value: Tensor, minimum: float = 1.0) -> Tensor:
    """Mean of ``value`` over all workers, at least ``minimum``; float32, without gradient.

    Call it on every rank in every step, whatever the data: a collective that one rank skips
    stops all others for ever.
    """
    value = value.detach().float().clone()
    world_size = get_world_size()
    if world_size > 1:
        dist.all_reduce(value)
        value /= world_size
    return value.clamp(min=minimum)
