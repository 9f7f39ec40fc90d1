"""Focal loss (RetinaNet, equation 5), on fvcore's implementation."""

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

from .checks import check_nonnegative, check_share
from .padding import without_padding


class FocalLoss:
    """Focal loss with hard labels, for sparse positives or for a label in every row.

    Args:
        alpha: weight of positives, in [0, 1]; negatives have 1 - alpha.
        gamma: how fast well-classified examples lose weight.

    Raises:
        ValueError: alpha or gamma is out of range.
    """

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

        This is the interface of :class:`VarifocalLoss`. ``pos_quality`` has no influence: the focal
        loss knows objects, not their boxes' quality. Rows that are not ``valid`` are left out, as
        in every reference with this loss.
        """
        logits = without_padding(logits, valid)
        target = torch.zeros_like(logits)
        target[pos_idx, pos_classes] = 1.0
        return sigmoid_focal_loss(
            logits, target, alpha=self.alpha, gamma=self.gamma, reduction="sum"
        )

    def on_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum over the rows of (R, K) ``logits`` that are not ignored.

        Args:
            labels: (R,) int64, the class of a positive row, K for background, -1 to ignore.
        """
        classes = torch.arange(logits.shape[1], device=labels.device)
        target = (labels[:, None] == classes).to(logits.dtype)
        loss = sigmoid_focal_loss(logits, target, alpha=self.alpha, gamma=self.gamma)
        # A mask instead of an index, whose length the host would have to wait for.
        return (loss.sum(1) * (labels >= 0)).sum()
