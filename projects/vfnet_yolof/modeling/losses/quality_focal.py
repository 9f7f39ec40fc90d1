"""Generalized and quality focal loss (Generalized Focal Loss, section 3)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import check_nonnegative
from .padding import without_padding
from .reduction import reduce_loss


def generalized_focal_loss(
    log_left: Tensor,
    log_right: Tensor,
    target: Tensor,
    *,
    left: Tensor | float = 0.0,
    right: Tensor | float = 1.0,
    beta: float = 2.0,
    reduction: str = "sum",
) -> Tensor:
    """Cross entropy of two variables against a value between them (equation 7).

    The global minimum has the probabilities that interpolate ``target`` linearly. The focal loss,
    QFL and DFL are special cases (equations 8 to 10).

    Args:
        log_left, log_right: (...) log-probabilities of the two variables, as ``logsigmoid`` or
            ``log_softmax`` give them from logits.
        target: (...) in [left, right]. left, right: values of the two variables, left < right.
        beta: exponent of the modulating factor ``|target - estimate|``.
        reduction: ``"sum"`` or ``"none"``.
    """
    loss = -((right - target) * log_left + (target - left) * log_right)
    if beta != 0:
        estimate = left * log_left.exp() + right * log_right.exp()
        loss = loss * modulating_factor(estimate, target, beta)
    return reduce_loss(loss, reduction)


def quality_focal_loss(
    logits: Tensor, target: Tensor, *, beta: float = 2.0, reduction: str = "sum"
) -> Tensor:
    """Binary cross entropy against a quality, focused on bad estimates (equations 2 and 9).

    It is :func:`generalized_focal_loss` for the values 0 and 1 with the probabilities
    ``1 - sigmoid(logits)`` and ``sigmoid(logits)``, in a form that needs less memory.

    Args:
        logits: (..., K) raw scores.
        target: (..., K), IoU with the ground truth in [0, 1] at the positive class, 0 elsewhere.
        beta: how fast well-estimated examples lose weight.
        reduction: ``"sum"`` or ``"none"``.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if beta != 0:
        loss = loss * modulating_factor(logits.sigmoid(), target, beta)
    return reduce_loss(loss, reduction)


def modulating_factor(estimate: Tensor, target: Tensor, beta: float) -> Tensor:
    """``|target - estimate| ** beta``, with a finite gradient at 0 for every ``beta``."""
    return (target - estimate).abs().clamp(min=1e-12).pow(beta)


class QualityFocalLoss:
    """:func:`quality_focal_loss` on sparse positives: the classification loss of GFL.

    Raises:
        ValueError: ``beta`` is negative or not finite.
    """

    def __init__(self, beta: float = 2.0) -> None:
        check_nonnegative(beta=beta)
        self.beta = beta

    def __call__(
        self,
        logits: Tensor,
        pos_idx: Tensor,
        pos_classes: Tensor,
        pos_quality: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Sum over locations and classes; arguments as of :class:`VarifocalLoss`.

        Rows that are not ``valid`` are left out, as in every reference with this loss.
        """
        logits = without_padding(logits, valid)
        target = torch.zeros_like(logits)
        target[pos_idx, pos_classes] = pos_quality
        return quality_focal_loss(logits, target, beta=self.beta)
