"""Uniform matching (YOLOF, section 4.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_convert

from ..boxes import aligned_iou
from .atss import box_chunks, smallest
from .match import PairMatch


class UniformAssigner:
    """The same number of positives for every box, whatever its size.

    Each box takes the ``topk`` predicted boxes that are nearest to it and the ``topk`` nearest
    anchors, by L1 distance of (cx, cy, w, h) in pixels; the earlier anchor on a tie. An anchor
    that is chosen twice, by both rules or by two boxes, makes two pairs.

    Args:
        topk: predicted boxes, and again anchors, for each box.
        min_iou: pairs whose anchor overlaps the box by less are ignored; 0 keeps all.
        max_iou: anchors without a pair are ignored where their predicted box overlaps any box by
            more; 1 ignores none.
        max_pairs: bound on the (box, anchor) pairs held at once, which bounds the memory
            (about 40 bytes a pair) whatever the number of boxes.
    """

    def __init__(
        self,
        topk: int = 4,
        min_iou: float = 0.15,
        max_iou: float = 0.7,
        max_pairs: int = 1_000_000,
    ) -> None:
        if topk < 1:
            raise ValueError(f"topk must be at least 1, got {topk}")
        for name, value in (("min_iou", min_iou), ("max_iou", max_iou)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        self.topk = topk
        self.min_iou = min_iou
        self.max_iou = max_iou
        self.max_pairs = max_pairs

    @torch.no_grad()
    def __call__(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        *,
        level_sizes: Sequence[int] | None = None,
        valid: Tensor | None = None,
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
        gt_classes: Tensor | None = None,
    ) -> PairMatch:
        """See :class:`.Assigner`; needs ``pred_boxes``, and levels and classes have no influence.

        Returns:
            2 M topk pairs: for each rank from the nearest on, all boxes with their predicted box of
            that rank, then all boxes with their anchor.
        """
        if pred_boxes is None:
            raise ValueError("uniform matching needs pred_boxes, what is predicted at the anchors")
        if valid is not None:
            return self(anchors[valid], gt_boxes, pred_boxes=pred_boxes[valid]).spread(valid)
        anchors, gt_boxes, pred_boxes = anchors.float(), gt_boxes.float(), pred_boxes.float()
        anchor_numbers, pred_numbers = _cxcywh(anchors), _cxcywh(pred_boxes)
        overlap = pred_boxes.new_zeros(len(pred_boxes))
        by_pred, by_anchor = [], []
        # With no boxes there is one empty piece, which gives the results their shapes.
        for boxes in box_chunks(gt_boxes, len(anchors), self.max_pairs):
            numbers = _cxcywh(boxes)
            by_pred.append(smallest(_l1(numbers, pred_numbers), self.topk))
            by_anchor.append(smallest(_l1(numbers, anchor_numbers), self.topk))
            if len(boxes):
                overlap = torch.maximum(overlap, _best_iou(boxes, pred_boxes))
        # (rank, by prediction or anchor, box)
        anchor_idx = torch.stack([torch.cat(by_pred).t(), torch.cat(by_anchor).t()], dim=1)
        gt_idx = torch.arange(len(gt_boxes), device=anchors.device).expand_as(anchor_idx)
        anchor_idx, gt_idx = anchor_idx.flatten(), gt_idx.flatten()
        return PairMatch(
            anchor_idx,
            gt_idx,
            aligned_iou(anchors[anchor_idx], gt_boxes[gt_idx]) < self.min_iou,
            overlap > self.max_iou,
        )


def _cxcywh(boxes: Tensor) -> Tensor:
    return box_convert(boxes, "xyxy", "cxcywh")


def _l1(boxes: Tensor, others: Tensor) -> Tensor:
    """(M, R) L1 distances of (M, 4) and (R, 4), summed in a fixed order."""
    total = (boxes[:, None, 0] - others[None, :, 0]).abs_()
    difference = torch.empty_like(total)
    for i in range(1, 4):
        torch.sub(boxes[:, None, i], others[None, :, i], out=difference)
        total += difference.abs_()
    return total


def _best_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(R,) highest IoU of each of ``others`` (R, 4) with any of ``boxes`` (M, 4).

    The same operations as torchvision's ``box_iou``, in place and one coordinate at a time, which
    with thousands of boxes is several times as fast.
    """
    (x1, y1, x2, y2), (u1, v1, u2, v2) = (x.unbind(1) for x in (boxes, others))
    shared = torch.minimum(x2[:, None], u2)
    other = torch.maximum(x1[:, None], u1)
    shared.sub_(other).clamp_(min=0)
    height = torch.minimum(y2[:, None], v2)
    height.sub_(torch.maximum(y1[:, None], v1, out=other)).clamp_(min=0)
    shared.mul_(height)
    areas, other_areas = (x2 - x1) * (y2 - y1), (u2 - u1) * (v2 - v1)
    union = torch.add(areas[:, None], other_areas, out=other).sub_(shared)
    return shared.div_(union).amax(0)
