"""Boxes as numbers that a network predicts."""

import torch
from torch import Tensor


def distances_to_boxes(points: Tensor, ltrb: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy from points (..., 2) and distances (..., 4) to the left, top, right
    and bottom side, all in pixels (FCOS, section 3.1)."""
    x, y = points.unbind(-1)
    left, top, right, bottom = ltrb.unbind(-1)
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)


def boxes_to_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """The inverse of :func:`distances_to_boxes`; negative where a point lies outside its box."""
    x, y = points.unbind(-1)
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x - x1, y - y1, x2 - x, y2 - y], dim=-1)


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) xyxy moved into an image of ``image_size`` (H, W) pixels."""
    height, width = image_size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1
    )


def integral(logits: Tensor, interval: float = 1.0) -> Tensor:
    """Expectation of a distribution over evenly spaced values (GFL, equation 5).

    Args:
        logits: (..., bins) before the softmax. interval: distance of neighbouring values, the
            first of which is 0.

    Returns:
        (...) in [0, (bins - 1) * interval].
    """
    return logits.softmax(-1) @ bin_values(logits, interval)


def bin_values(logits: Tensor, interval: float = 1.0) -> Tensor:
    """The values (bins,) that the last dimension of ``logits`` stands for."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return bins * interval
