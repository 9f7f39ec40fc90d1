"""Varifocal loss (VarifocalNet, section 4.2, equation 2)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .reduction import reduce_loss


def varifocal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    reduction: str = "sum",
) -> Tensor:
    """Binary cross entropy against an IoU-aware classification score.

    Positives (``target`` > 0) are weighted with their target, negatives with
    ``alpha * p ** gamma``. As in the reference the negative weight stays in the graph.

    Args:
        logits: (..., K) raw scores.
        target: (..., K), IoU with the ground truth in [0, 1] at the positive class, 0 elsewhere.
        alpha, gamma: weighting of the negatives.
        iou_weighted: weight positives with their target (the paper's q weighting), else with 1.
        reduction: ``"sum"`` or ``"none"``.
    """
    negative_weight = alpha * (logits.sigmoid() - target).abs().pow(gamma)
    positive_weight = target if iou_weighted else torch.ones_like(target)
    weight = torch.where(target > 0, positive_weight, negative_weight)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight
    return reduce_loss(loss, reduction)


class VarifocalLoss:
    """:func:`varifocal_loss` on sparse positives: the classification loss of VFNet."""

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.iou_weighted = iou_weighted

    def __call__(
        self, logits: Tensor, pos_idx: Tensor, pos_classes: Tensor, pos_iou: Tensor
    ) -> Tensor:
        """Sum over all locations and classes.

        Args:
            logits: (R, K) float32. pos_idx: (P,) rows that are positive, each once.
            pos_classes: (P,) their class. pos_iou: (P,) IoU of their predicted box with the
                ground truth, without gradient: the IACS target (section 4.1).
        """
        target = torch.zeros_like(logits)
        target[pos_idx, pos_classes] = pos_iou
        return varifocal_loss(
            logits, target, alpha=self.alpha, gamma=self.gamma, iou_weighted=self.iou_weighted
        )
