"""Varifocal loss (VarifocalNet, section 4.2, equation 2)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import check_nonnegative, check_share
from .padding import without_padding
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
    """:func:`varifocal_loss` on sparse positives: the classification loss of VFNet.

    Its authors use it in two ways, and the defaults are those of VFNet, ATSS and FoveaBox.
    RetinaNet and RepPoints have ``padding_is_negative=False`` and ``min_iou=0``.

    Args:
        alpha, gamma, iou_weighted: see :func:`varifocal_loss`.
        padding_is_negative: let locations beyond an image's own padded size, where a larger image
            of the batch makes them, count as negatives; else they are left out.
        min_iou: smallest target of a positive; one of 0 would count as a negative.

    Raises:
        ValueError: alpha or gamma is negative or not finite, or min_iou is not in [0, 1].
    """

    def __init__(
        self,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        padding_is_negative: bool = True,
        min_iou: float = 1e-6,
    ) -> None:
        check_nonnegative(alpha=alpha, gamma=gamma)
        check_share(min_iou=min_iou)
        self.alpha = alpha
        self.gamma = gamma
        self.iou_weighted = iou_weighted
        self.padding_is_negative = padding_is_negative
        self.min_iou = min_iou

    def __call__(
        self,
        logits: Tensor,
        pos_idx: Tensor,
        pos_classes: Tensor,
        pos_quality: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Sum over locations and classes.

        Args:
            logits: (R, K) float32. pos_idx: (P,) rows that are positive, each once.
            pos_classes: (P,) their class. pos_quality: (P,) how good their box is, in [0, 1] and
                without gradient. VFNet gives the IoU of the predicted box with the ground truth,
                the IACS target (section 4.1); in GFL's table 1a it may be the centerness.
            valid: (R,) bool, rows that lie in an image's own padded size, as all positives do;
                all rows if None.
        """
        if not self.padding_is_negative:
            logits = without_padding(logits, valid)
        target = torch.zeros_like(logits)
        target[pos_idx, pos_classes] = pos_quality.clamp(min=self.min_iou)
        return varifocal_loss(
            logits, target, alpha=self.alpha, gamma=self.gamma, iou_weighted=self.iou_weighted
        )
