"""Overlap of boxes pair by pair."""

import torch
from torch import Tensor


def aligned_iou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """IoU of each box with its counterpart: (..., 4) and (..., 4) xyxy -> (...).

    ``eps`` is the smallest union that is divided by, so that two empty boxes give 0.
    """
    intersection, union = _intersection_and_union(boxes, others)
    return intersection / union.clamp(min=eps)


def giou_loss(boxes: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """1 - generalised IoU of each box with its target: (P, 4) and (P, 4) xyxy -> (P,).

    GIoU, algorithm 1. ``eps`` is the smallest union and enclosing area that is divided by,
    which is how the VFNet and GFL references treat degenerate boxes.
    """
    intersection, union = _intersection_and_union(boxes, targets)
    union = union.clamp(min=eps)
    enclosing = torch.maximum(boxes[..., 2:], targets[..., 2:]) - torch.minimum(
        boxes[..., :2], targets[..., :2]
    )
    area = enclosing.clamp(min=0).prod(-1).clamp(min=eps)
    return 1 - intersection / union + (area - union) / area


def _intersection_and_union(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    other_area = (others[..., 2:] - others[..., :2]).prod(-1)
    return intersection, area + other_area - intersection
