"""Choosing the nearest anchors in the same way on every device."""

import torch
from torch import Tensor


def smallest(values: Tensor, k: int) -> Tensor:
    """Indices of the ``k`` smallest values of each row, ascending; of equal ones the earlier.

    Args:
        values: (M, R) float32, not negative; NaN counts as larger than anything.
        k: how many; rows shorter than that give all they have.

    Returns:
        (M, min(k, R)) int64.
    """
    # The bits of a non-negative float sort as an integer does; with the index below them no two
    # keys are equal, so the choice is the same on every device.
    keys = values.contiguous().view(torch.int32).to(torch.int64)
    keys <<= 32
    keys += torch.arange(values.shape[1], device=values.device)
    return keys.topk(min(k, values.shape[1]), largest=False).values & 0xFFFFFFFF
