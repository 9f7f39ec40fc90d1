"""How unreduced losses become numbers."""

from torch import Tensor


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """``loss`` itself for ``"none"``, its sum for ``"sum"``; ValueError for anything else."""
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"reduction must be 'sum' or 'none', got {reduction!r}")
