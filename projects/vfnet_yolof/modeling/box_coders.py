"""Boxes as numbers that a network predicts."""

import math

import torch
from torch import Tensor

SCALE_CLAMP = math.log(1000.0 / 16)  # boxes grow to 62.5 anchors at most, as in Detectron2


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
    # A sum, not a matrix product: tools that count or convert operators know no product of a
    # tensor with a vector.
    return (logits.softmax(-1) * bin_values(logits, interval)).sum(-1)


def bin_values(logits: Tensor, interval: float = 1.0) -> Tensor:
    """The values (bins,) that the last dimension of ``logits`` stands for."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return bins * interval


class ClampedDeltaCoder:
    """Boxes as shifts and growths of anchors (R-CNN), whose centres move only so far.

    The four numbers are the shift of the centre in units of the anchor's width and height, and
    the logarithms of the growth of width and height.

    Args:
        center_clamp: largest shift of a centre along x and along y, pixels (YOLOF, section 4.3);
            None for no limit. Beyond it the prediction gets no gradient.
        scale_clamp: largest logarithm of a growth.
    """

    def __init__(self, center_clamp: float | None = 32.0, scale_clamp: float = SCALE_CLAMP) -> None:
        self.center_clamp = center_clamp
        self.scale_clamp = scale_clamp

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas (..., 4) from ``anchors`` to ``boxes`` (..., 4) xyxy pixels; not clamped."""
        centers, sizes = _centers_and_sizes(anchors)
        box_centers, box_sizes = _centers_and_sizes(boxes)
        return torch.cat([(box_centers - centers) / sizes, (box_sizes / sizes).log()], dim=-1)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) xyxy pixels from deltas and anchors (..., 4); the inverse of encode."""
        centers, sizes = _centers_and_sizes(anchors)
        shift = deltas[..., :2] * sizes
        if self.center_clamp is not None:
            shift = shift.clamp(-self.center_clamp, self.center_clamp)
        centers = centers + shift
        half = 0.5 * sizes * deltas[..., 2:].clamp(max=self.scale_clamp).exp()
        return torch.cat([centers - half, centers + half], dim=-1)


def _centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2) x, y of the centres, and (..., 2) widths and heights, of xyxy boxes."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
