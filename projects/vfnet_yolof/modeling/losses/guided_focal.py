"""Focal loss that listens to the quality of boxes: the implicit rows of GFL's table 1a."""

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

from .checks import check_nonnegative, check_share
from .padding import without_padding


class GuidedFocalLoss:
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
        """Sum over the ``valid`` rows of (R, K) ``logits``; arguments as of
        :class:`VarifocalLoss`."""
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
