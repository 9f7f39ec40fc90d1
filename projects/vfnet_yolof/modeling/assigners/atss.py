"""Adaptive training sample selection (ATSS, section 3.2, algorithm 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..boxes import aligned_iou
from .match import SingleMatch

INSIDE_MARGIN = 0.01  # pixels; the reference's `min(l, t, r, b) > 0.01`


class ATSSAssigner:
    """Positives by statistics of the IoU between a box and the anchors nearest to it.

    For every box the ``topk`` anchors with the nearest centres are taken on each level. A
    candidate is positive if its centre lies inside the box and its IoU is at least the mean plus
    the (unbiased) standard deviation of the IoUs of the box's candidates on all levels. An anchor
    that is positive for several boxes is assigned the one with the highest IoU (ties: the box with
    the lowest index). Of anchors at
    equal distance those with the lowest indices are taken. No anchor gets an ignore label.

    With A anchors at each location ``topk`` counts anchors, not locations, as in YOLOF's
    comparisons ("top9 anchors", tables 5e and 8): with A = 5, ``topk=15`` selects the anchors of
    the three nearest locations. ATSS's authors count locations; for their rule multiply ``topk``
    by A.

    Args:
        topk: candidates per box and level; small levels give all they have.
        max_pairs: bound on the (box, location) pairs held at once, which bounds the memory
            (16 bytes a pair) whatever the number of boxes.
    """

    point_offset = 0.0  # where the references' locations lie in their cells, in strides

    def __init__(self, topk: int = 9, max_pairs: int = 4_000_000) -> None:
        if topk < 1:
            raise ValueError(f"topk must be at least 1, got {topk}")
        self.topk = topk
        self.max_pairs = max_pairs

    @torch.no_grad()
    def __call__(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        *,
        level_sizes: Sequence[int],
        valid: Tensor | None = None,
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
        gt_classes: Tensor | None = None,
    ) -> SingleMatch:
        """See :class:`.Assigner`; predictions and classes have no influence."""
        assigned = anchors.new_full((len(anchors),), -1, dtype=torch.int64)
        if len(gt_boxes) == 0:
            return SingleMatch(assigned)
        anchors, gt_boxes = anchors.float(), gt_boxes.float()
        chunks = [
            self._candidates(anchors, boxes, level_sizes, valid)
            for boxes in box_chunks(gt_boxes, len(anchors), self.max_pairs)
        ]
        candidates = torch.cat([idx for idx, _ in chunks])
        usable = torch.cat([mask for _, mask in chunks])
        iou, positive = self._select(anchors, gt_boxes, candidates, usable)
        return SingleMatch(_best_box(assigned, candidates, iou, positive))

    def _candidates(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        level_sizes: Sequence[int],
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Indices (M, C) of the nearest anchors of all levels and which of them are usable."""
        centers = (anchors[:, :2] + anchors[:, 2:]) / 2
        gt_centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
        found, start = [], 0
        for size in level_sizes:
            level = slice(start, start + size)
            distance = (centers[None, level] - gt_centers[:, None]).square_().sum(-1).sqrt_()
            if valid is not None:
                distance.masked_fill_(~valid[None, level], torch.inf)
            found.append(start + smallest(distance, self.topk))
            start += size
        candidates = torch.cat(found, dim=1)
        if valid is None:
            return candidates, torch.ones_like(candidates, dtype=torch.bool)
        return candidates, valid[candidates]

    def _select(
        self, anchors: Tensor, gt_boxes: Tensor, candidates: Tensor, usable: Tensor
    ) -> tuple[Tensor, Tensor]:
        """IoU (M, C) of the candidates and which of them are positive."""
        boxes = anchors[candidates]
        iou = aligned_iou(boxes, gt_boxes[:, None].expand_as(boxes))
        # Summed along the outer dimension: a box inside all of its candidates has the same IoU
        # with each, and rounding, which then decides, is that of the reference.
        count = usable.t().contiguous().sum(0)
        mean = (iou * usable).t().contiguous().sum(0) / count.clamp(min=1)
        squares = ((iou - mean[:, None]).square() * usable).t().contiguous().sum(0)
        threshold = (mean + (squares / (count - 1).clamp(min=1)).sqrt())[:, None]
        centers = (boxes[..., :2] + boxes[..., 2:]) / 2
        inside = torch.minimum(centers - gt_boxes[:, None, :2], gt_boxes[:, None, 2:] - centers)
        positive = usable & (iou >= threshold) & (inside.amin(-1) > INSIDE_MARGIN)
        return iou, positive


def _best_box(assigned: Tensor, candidates: Tensor, iou: Tensor, positive: Tensor) -> Tensor:
    """Give every location that is positive to the box with the highest IoU there."""
    num_boxes = len(candidates)
    box_idx = torch.arange(num_boxes, device=iou.device)[:, None].expand_as(candidates)
    # As in :func:`smallest`: IoU in the upper bits, so that the maximum is the best box and, among
    # equals, the first one.
    keys = (iou.view(torch.int32).to(torch.int64) << 32) + (num_boxes - box_idx)
    keys = torch.where(positive, keys, -1)
    best = torch.full_like(assigned, -1).scatter_reduce_(
        0, candidates.flatten(), keys.flatten(), reduce="amax"
    )
    return torch.where(best >= 0, num_boxes - (best & 0xFFFFFFFF), assigned)


def smallest(values: Tensor, k: int) -> Tensor:
    """Indices of the ``k`` smallest values of each row, ascending; of equal ones the earlier.

    Args:
        values: (M, R) float32, not negative; NaN counts as larger than anything.
        k: how many; rows shorter than that give all they have.

    Returns:
        (M, min(k, R)) int64.
    """
    # The bits of a non-negative float sort as an integer does; with the index below them no two
    # keys are equal, so the choice is the same on every device.
    keys = values.contiguous().view(torch.int32).to(torch.int64)
    keys <<= 32
    keys += torch.arange(values.shape[1], device=values.device)
    return keys.topk(min(k, values.shape[1]), largest=False).values & 0xFFFFFFFF


def box_chunks(gt_boxes: Tensor, num_locations: int, max_pairs: int) -> tuple[Tensor, ...]:
    """Boxes (M, 4) in pieces such that a piece times ``num_locations`` is at most ``max_pairs``."""
    return gt_boxes.split(max(1, max_pairs // max(1, num_locations)))


AnchorATSSAssigner = ATSSAssigner  # what configurations saved by release 0.1 call it
