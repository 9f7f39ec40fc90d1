"""The focal loss (RetinaNet, equation 5) and its family.

Varifocal loss (VarifocalNet, section 4.2), generalized, quality and distribution focal loss
(Generalized Focal Loss, section 3). All classification losses have one call signature, in which
positives are given by row, class and quality: see :class:`ClassificationLoss`.
"""

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor
from torch.nn import functional as F

from .classification import (
    ClassificationLoss,
    check_nonnegative,
    check_share,
    reduce_loss,
    without_padding,
)


class FocalLoss(ClassificationLoss):
    """Focal loss with hard labels, for sparse positives or for a label in every row.

    Args:
        alpha: weight of positives, in [0, 1]; negatives have 1 - alpha.
        gamma: how fast well-classified examples lose weight.

    Raises:
        ValueError: alpha or gamma is out of range.
    """

    uses_quality = False

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        check_share(alpha=alpha)
        check_nonnegative(gamma=gamma)
        self.alpha = alpha
        self.gamma = gamma

    def __call__(
        self,
        logits: Tensor,
        pos_idx: Tensor,
        pos_classes: Tensor,
        pos_quality: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Sum over (R, K) ``logits``; the target is 1 at the class of each positive row.

        ``pos_quality`` has no influence: the focal loss knows objects, not their boxes' quality.
        Rows that are not ``valid`` are left out, as in every reference with this loss.
        """
        logits = without_padding(logits, valid)
        target = torch.zeros_like(logits)
        target[pos_idx, pos_classes] = 1.0
        return sigmoid_focal_loss(
            logits, target, alpha=self.alpha, gamma=self.gamma, reduction="sum"
        )

    def on_labels(
        self,
        logits: Tensor,
        labels: Tensor,
        quality: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Sum over the rows that are neither ignored nor outside of ``valid``."""
        logits, labels = logits.flatten(0, -2), labels.flatten()
        classes = torch.arange(logits.shape[1], device=labels.device)
        target = (labels[:, None] == classes).to(logits.dtype)
        loss = sigmoid_focal_loss(logits, target, alpha=self.alpha, gamma=self.gamma)
        counts = labels >= 0 if valid is None else (labels >= 0) & valid.flatten()
        # A mask instead of an index, whose length the host would have to wait for.
        return (loss.sum(1) * counts).sum()


class GuidedFocalLoss(ClassificationLoss):
    """Focal loss whose positives are weighted with the quality of their boxes.

    Our definition, in the manner of the IoU-balanced classification loss (Wu and Li, 2019) that
    the paper cites, but not checked against it: a positive weighs ``quality ** eta``, times the
    factor that leaves the sum of the positives' losses as it was; targets stay 1, negatives stay
    as they are. The weights carry no gradient. Centerness or IoU guides, by which of them the
    detector hands over as quality.

    Args:
        alpha, gamma: of the focal loss. eta: exponent of the quality.

    Raises:
        ValueError: one of them is out of range.
    """

    quality_role = "weight"

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, eta: float = 1.5) -> None:
        check_share(alpha=alpha)
        check_nonnegative(gamma=gamma, eta=eta)
        self.alpha = alpha
        self.gamma = gamma
        self.eta = eta

    def __call__(
        self,
        logits: Tensor,
        pos_idx: Tensor,
        pos_classes: Tensor,
        pos_quality: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Sum over the ``valid`` rows of (R, K) ``logits``."""
        logits = without_padding(logits, valid)
        target = torch.zeros_like(logits)
        target[pos_idx, pos_classes] = 1.0
        loss = sigmoid_focal_loss(logits, target, alpha=self.alpha, gamma=self.gamma)
        positive = loss[pos_idx, pos_classes]
        # Without positives, or with worthless ones only, the sums are 0 and nothing is scaled.
        weight = pos_quality.clamp(min=0).pow(self.eta)
        total = (weight * positive).sum().detach()
        factor = positive.sum().detach() / total.clamp(min=torch.finfo(total.dtype).tiny)
        weight = torch.where(total > 0, weight * factor, torch.ones_like(weight))
        return loss.sum() + ((weight - 1) * positive).sum()


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


class VarifocalLoss(ClassificationLoss):
    """:func:`varifocal_loss` for positives given by row and class: VFNet's classification loss.

    In the authors' code this loss differs by detector. The defaults here are what it uses with
    VFNet, ATSS and FoveaBox; with RetinaNet and RepPoints it uses ``padding_is_negative=False`` and
    ``min_iou=0``.

    Args:
        alpha, gamma, iou_weighted: see :func:`varifocal_loss`.
        padding_is_negative: locations that exist only because another image of the batch is larger
            count as negatives; else they are ignored.
        min_iou: lower clamp of the positives' targets; a target of 0 would count as a negative.

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
        """Sum over locations and classes; rows that are not ``valid`` may count as negatives."""
        if not self.padding_is_negative:
            logits = without_padding(logits, valid)
        target = torch.zeros_like(logits)
        target[pos_idx, pos_classes] = pos_quality.clamp(min=self.min_iou)
        return varifocal_loss(
            logits, target, alpha=self.alpha, gamma=self.gamma, iou_weighted=self.iou_weighted
        )


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


class QualityFocalLoss(ClassificationLoss):
    """:func:`quality_focal_loss`, for positives given by row and class: GFL's classification loss.

    Args:
        beta: exponent of the modulating factor.

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
        """Sum over locations and classes.

        Rows that are not ``valid`` are left out, as in every reference with this loss.
        """
        logits = without_padding(logits, valid)
        target = torch.zeros_like(logits)
        target[pos_idx, pos_classes] = pos_quality
        return quality_focal_loss(logits, target, beta=self.beta)


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
