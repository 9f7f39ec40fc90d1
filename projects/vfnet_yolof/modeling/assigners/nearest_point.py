"""The locations nearest to a box's centre (RepPoints, section 3.2: the first stage)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .atss import box_chunks, smallest
from .match import SingleMatch


class NearestPointAssigner:
    """Every box is learned by the ``topk`` nearest locations of the level of its size.

    Distances are in units of the box's width and height. A location that several boxes want learns
    the one that it is nearest to, the first of equal ones.

    Args:
        strides: of each level, powers of two.
        scale: sides of a box that is on a level of stride s are about ``scale * s``.
        topk: locations of each box.
        max_pairs: bound on the (box, location) pairs held at once.

    Raises:
        ValueError: ``scale`` is not positive, ``topk`` is less than 1, or a stride is no power of
            two.
    """

    point_offset = 0.0  # where the reference's locations lie in their cells, in strides

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        scale: float = 4.0,
        topk: int = 1,
        max_pairs: int = 4_000_000,
    ) -> None:
        if not scale > 0 or topk < 1:
            raise ValueError(f"scale must be positive and topk at least 1, got {scale} and {topk}")
        if any(x < 1 or x & (x - 1) for x in strides):
            raise ValueError(f"strides must be powers of two, got {list(strides)}")
        self.levels = tuple(int(math.log2(x)) for x in strides)
        self.scale = scale
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
        """See :class:`.Assigner`; predictions and classes have no influence.

        Raises:
            ValueError: there are not as many levels as strides.
        """
        if len(level_sizes) != len(self.levels):
            raise ValueError(f"{len(level_sizes)} levels, but strides of {len(self.levels)}")
        none = anchors.new_full((len(anchors),), -1, dtype=torch.int64)
        if len(gt_boxes) == 0:
            return SingleMatch(none)
        points, gt_boxes = (anchors[:, :2] + anchors[:, 2:]).float() / 2, gt_boxes.float()
        levels = torch.cat(
            [torch.full_like(none[:n], x) for n, x in zip(level_sizes, self.levels, strict=True)]
        )
        found = [
            self._nearest(points, levels, boxes, valid)
            for boxes in box_chunks(gt_boxes, len(points), self.max_pairs)
        ]
        distances, wanted = (torch.cat(x) for x in zip(*found, strict=True))
        # As in `smallest`: of equal distances the first box.
        box = torch.arange(len(gt_boxes), device=wanted.device)[:, None].expand_as(wanted)
        keys = (distances.contiguous().view(torch.int32).to(torch.int64) << 32) + box
        nothing = torch.iinfo(torch.int64).max
        keys = torch.where(distances.isfinite(), keys, nothing)
        best = torch.full_like(none, nothing).scatter_reduce_(
            0, wanted.flatten(), keys.flatten(), reduce="amin"
        )
        return SingleMatch(torch.where(best < nothing, best & 0xFFFFFFFF, -1))

    def _nearest(
        self, points: Tensor, levels: Tensor, boxes: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Distances and indices (M, topk) of the points; a distance of inf stands for none."""
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
        level = ((sides / self.scale).log2().sum(-1) / 2).int()
        level = level.clamp(min(self.levels), max(self.levels))
        distance = ((points - centers[:, None]) / sides[:, None]).norm(dim=-1)
        usable = levels == level[:, None]
        distance = distance.masked_fill(~(usable if valid is None else usable & valid), torch.inf)
        index = smallest(distance, self.topk)
        return distance.gather(1, index), index
