"""Boxes: as distances from points, as deltas of anchors, in an image, and how they overlap."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SCALE_CLAMP = math.log(1000.0 / 16)  # boxes grow to 62.5 anchors at most, as in Detectron2


def distances_to_boxes(points: Tensor, ltrb: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy from points (..., 2) and distances (..., 4) to the left, top, right
    and bottom side, all in pixels (FCOS, section 3.1)."""
    return torch.cat([points - ltrb[..., :2], points + ltrb[..., 2:]], dim=-1)


def boxes_to_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """The inverse of :func:`distances_to_boxes`; negative where a point lies outside its box."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) xyxy moved into an image of ``image_size`` (H, W) pixels."""
    height, width = image_size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1
    )


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
    return giou_loss_and_iou(boxes, targets, eps)[0]


def giou_loss_and_iou(boxes: Tensor, targets: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """:func:`giou_loss`, and the :func:`aligned_iou` of the same boxes without gradient."""
    intersection, union = _intersection_and_union(boxes, targets)
    union = union.clamp(min=eps)
    enclosing = torch.maximum(boxes[..., 2:], targets[..., 2:]) - torch.minimum(
        boxes[..., :2], targets[..., :2]
    )
    area = enclosing.clamp(min=0).prod(-1).clamp(min=eps)
    iou = intersection / union
    return 1 - iou + (area - union) / area, iou.detach()


def _intersection_and_union(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    other_area = (others[..., 2:] - others[..., :2]).prod(-1)
    return intersection, area + other_area - intersection


def centerness_target(ltrb: Tensor) -> Tensor:
    """How central a point lies in its box: distances (..., 4) to the sides -> (...) in [0, 1].

    A point on a side, or outside of the box, has centerness 0 (FCOS, section 3.3, equation 3).
    """
    left, top, right, bottom = ltrb.clamp(min=0).unbind(-1)
    horizontal = left.minimum(right) / left.maximum(right).clamp(min=1e-6)
    vertical = top.minimum(bottom) / top.maximum(bottom).clamp(min=1e-6)
    return (horizontal * vertical).sqrt()


class ClampedDeltaCoder:
    """Box deltas (dx, dy, dw, dh) as in R-CNN, with the shift of the centre clamped as in YOLOF.

    dx, dy are the shift of the centre in units of the anchor's width and height, dw, dh the
    logarithms of the ratios of width and height.

    Args:
        center_clamp: largest shift of a centre along x and along y, pixels (YOLOF, section 4.3);
            None for no limit. A larger predicted shift is clamped and gets no gradient.
        scale_clamp: largest dw and dh.
        shrink_clamp: largest magnitude of a negative dw or dh; None for no limit. MMDetection
            limits both directions, Detectron2 growth alone.
        stds: deltas are in units of these four numbers, MMDetection's ``target_stds``.

    Raises:
        ValueError: ``stds`` are not four positive numbers.
    """

    def __init__(
        self,
        center_clamp: float | None = 32.0,
        scale_clamp: float = SCALE_CLAMP,
        shrink_clamp: float | None = None,
        stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    ) -> None:
        if len(stds) != 4 or not all(x > 0 for x in stds):
            raise ValueError(f"stds must be four positive numbers, got {stds}")
        self.center_clamp = center_clamp
        self.scale_clamp = scale_clamp
        self.shrink_clamp = shrink_clamp
        self.stds = tuple(stds)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas (..., 4) from ``anchors`` to ``boxes`` (..., 4) xyxy pixels; not clamped."""
        centers, sizes = _centers_and_sizes(anchors)
        box_centers, box_sizes = _centers_and_sizes(boxes)
        deltas = torch.cat([(box_centers - centers) / sizes, (box_sizes / sizes).log()], dim=-1)
        return _times(deltas, [1 / x for x in self.stds])

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) xyxy pixels from deltas and anchors (..., 4); the inverse of encode where
        no clamp applies.
        """
        centers, sizes = _centers_and_sizes(anchors)
        deltas = _times(deltas, self.stds)
        shift = deltas[..., :2] * sizes
        if self.center_clamp is not None:
            shift = shift.clamp(-self.center_clamp, self.center_clamp)
        centers = centers + shift
        smallest = None if self.shrink_clamp is None else -self.shrink_clamp
        half = 0.5 * sizes * deltas[..., 2:].clamp(smallest, self.scale_clamp).exp()
        return torch.cat([centers - half, centers + half], dim=-1)


def _centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2) x, y of the centres, and (..., 2) widths and heights, of xyxy boxes."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


def _times(values: Tensor, factors: Sequence[float]) -> Tensor:
    """(..., 4) times four numbers, which stay on the host: a new tensor would make it wait."""
    if all(x == 1 for x in factors):
        return values
    return torch.stack([x * f for x, f in zip(values.unbind(-1), factors, strict=True)], dim=-1)
