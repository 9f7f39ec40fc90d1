"""How far the boxes predicted for anchors are from the boxes they should be."""

from typing import Protocol

from fvcore.nn import smooth_l1_loss
from torch import Tensor

from ..boxes import giou_loss
from .classification import check_nonnegative


class BoxCoder(Protocol):
    """Encodes boxes as regression targets, and decodes them.

    See :class:`vfnet_yolof.modeling.boxes.ClampedDeltaCoder`.
    """

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor: ...

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor: ...


class GIoUBoxLoss:
    """1 - GIoU of the decoded box."""

    def __call__(
        self, coder: BoxCoder, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor
    ) -> Tensor:
        """(P,) from predicted deltas, anchors and boxes, each (P, 4); boxes xyxy in pixels."""
        return giou_loss(coder.decode(deltas, anchors), gt_boxes)


class SmoothL1BoxLoss:
    """Smooth L1 distance of the deltas, summed over the four of them (RetinaNet).

    Args:
        beta: where the loss turns from quadratic to linear; 0 is L1.

    Raises:
        ValueError: ``beta`` is negative or not finite.
    """

    def __init__(self, beta: float = 0.1) -> None:
        check_nonnegative(beta=beta)
        self.beta = beta

    def __call__(
        self, coder: BoxCoder, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor
    ) -> Tensor:
        """(P,), arguments as of :class:`GIoUBoxLoss`."""
        return smooth_l1_loss(deltas, coder.encode(anchors, gt_boxes), self.beta).sum(-1)
