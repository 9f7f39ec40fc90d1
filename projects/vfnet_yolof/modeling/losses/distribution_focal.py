"""Distribution focal loss (Generalized Focal Loss, section 3, equations 6 and 10)."""

from torch import Tensor

from .quality_focal import generalized_focal_loss
from .reduction import reduce_loss


def distribution_focal_loss(logits: Tensor, target: Tensor, *, reduction: str = "sum") -> Tensor:
    """Cross entropy with the two bins around the target, weighted by how near they are.

    Args:
        logits: (..., n + 1), one for each bin, before the softmax.
        target: (...) position among the bins, in [0, n].
        reduction: ``"sum"`` or ``"none"``, which gives (...).
    """
    left = target.detach().floor().clamp(0, logits.shape[-1] - 2)
    index = left.long().unsqueeze(-1)
    log_probabilities = logits.log_softmax(-1)
    loss = generalized_focal_loss(
        log_probabilities.gather(-1, index).squeeze(-1),
        log_probabilities.gather(-1, index + 1).squeeze(-1),
        target,
        left=left,
        right=left + 1,
        beta=0.0,
        reduction="none",
    )
    return reduce_loss(loss, reduction)
