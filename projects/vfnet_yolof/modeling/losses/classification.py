"""What all classification losses share, and the one with a class for background.

All have one call signature, in which positives are given by row, class and quality.
"""

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F


def check_nonnegative(**values: object) -> None:
    """Each of the named values is a finite number and not negative.

    A negative weight or exponent would train away from the target without an error.

    Raises:
        ValueError: one is not; names it.
    """
    for name, value in values.items():
        if not (isinstance(value, Real) and math.isfinite(value)):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def check_share(**values: object) -> None:
    """Each of the named values lies in [0, 1]; otherwise as :func:`check_nonnegative`."""
    for name, value in values.items():
        if not (isinstance(value, Real) and 0 <= float(value) <= 1):
            raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")


CERTAIN_BACKGROUND = -1e4  # a logit whose loss and gradient as a negative are exactly 0


def without_padding(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Logits (R, K) whose rows outside of ``valid`` (R,) bool cost nothing and learn nothing.

    They become certain background instead of being left out: the length of a selection the host
    would have to wait for. None: all rows count.
    """
    if valid is None:
        return logits
    return logits.masked_fill(~valid[:, None], CERTAIN_BACKGROUND)


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """``loss`` itself for ``"none"``, its sum for ``"sum"``; ValueError for anything else."""
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"reduction must be 'sum' or 'none', got {reduction!r}")


class ClassificationLoss:
    """What the ``cls_loss`` of every detector can do; subclasses compute the sum.

    Attributes:
        uses_quality: whether the positives' quality has an influence.
        quality_role: which, in one word; for diagrams.
        has_background: whether the logits have one more class, the last, for background.
    """

    uses_quality = True
    quality_role = "target"
    has_background = False

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
            logits: (R, K) float32, of all R locations of the batch and K classes.
            pos_idx: (P,) rows of ``logits`` that are positive, each once.
            pos_classes: (P,) class of each positive row.
            pos_quality: (P,) quality of each positive row's box, in [0, 1] and
                without gradient. VFNet gives the IoU of the predicted box with the ground truth,
                the target of the IoU-aware classification score (section 4.1); in GFL's table 1a it
                may be the centerness.
            valid: (R,) bool, rows that lie in an image's own padded size, as all positives do;
                all rows if None.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no sum")

    def on_labels(
        self,
        logits: Tensor,
        labels: Tensor,
        quality: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The same sum with a label in every row, which may also say that a row is ignored.

        Args:
            logits: (..., K). labels: (...) int64, the class of a positive row, K for background,
                -1 to ignore.
            quality: (...) quality of the positive rows' boxes, other rows have any value; may be
                None where ``uses_quality`` is False.
            valid: (...) bool, see above; for this loss to judge, unlike rows that are ignored.
        """
        labels = labels.flatten()
        logits = without_padding(logits.flatten(0, -2), labels >= 0)
        pos_idx = ((labels >= 0) & (labels < logits.shape[1])).nonzero()[:, 0]
        pos_quality = torch.ones_like(logits[:, 0]) if quality is None else quality.flatten()
        return self(
            logits,
            pos_idx,
            labels[pos_idx],
            pos_quality[pos_idx],
            None if valid is None else valid.flatten(),
        )


def check_no_background(loss: object) -> None:
    """The loss has no class for background, which the caller's head has no logits for.

    Raises:
        ValueError: it has.
    """
    if getattr(loss, "has_background", False):
        raise ValueError(
            f"{type(loss).__name__} learns a class for background, which this detector's head does "
            "not have: choose a classification loss, one without a class for background, such as "
            "FocalLoss"
        )


def loss_on_labels(
    loss: Callable[..., Tensor],
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None,
    valid: Tensor | None,
) -> Tensor:
    """:meth:`ClassificationLoss.on_labels` of any loss that is called as one."""
    if isinstance(loss, ClassificationLoss) or hasattr(loss, "on_labels"):
        return loss.on_labels(logits, labels, quality, valid)
    return ClassificationLoss.on_labels(loss, logits, labels, quality, valid)  # type: ignore[arg-type]


class MinedCrossEntropy(ClassificationLoss):
    """Softmax cross entropy with the hardest negatives of each image (SSD, section 2.2).

    Background is a class of its own, the last. Each image's positives count, and of its negatives
    the ``ratio`` times as many whose loss is highest (of equal ones the earlier); an image without
    positives counts nothing.

    Args:
        ratio: negatives for each positive.

    Raises:
        ValueError: ``ratio`` is negative or not finite.
    """

    uses_quality = False
    has_background = True

    def __init__(self, ratio: float = 3.0) -> None:
        check_nonnegative(ratio=ratio)
        self.ratio = ratio

    def on_labels(
        self,
        logits: Tensor,
        labels: Tensor,
        quality: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Sum over the images; ``logits`` are (N, R, K + 1), ``labels`` and ``valid`` (N, R).

        Rows that are ignored or not ``valid`` are no negatives.
        """
        loss = F.cross_entropy(
            logits.flatten(0, 1), labels.clamp(min=0).flatten(), reduction="none"
        ).view_as(labels)
        background = logits.shape[-1] - 1
        positive = (labels >= 0) & (labels < background)
        negative = labels == background
        if valid is not None:
            negative = negative & valid
        return torch.where(positive | self.hardest(loss, positive, negative), loss, 0.0).sum()

    @torch.no_grad()
    def hardest(self, loss: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """(N, R) bool: which negatives count; arguments (N, R)."""
        order = loss.masked_fill(~negative, -1.0).sort(dim=1, descending=True, stable=True).indices
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        return negative & (rank < self.ratio * positive.sum(1, keepdim=True))
