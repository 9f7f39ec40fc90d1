"""Boxes' central parts on the levels of their size (FoveaBox, sections 3.2 and 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .atss import box_chunks
from .match import SingleMatch


class FoveaAssigner:
    """Every level learns the boxes of a range of sizes, in the middle of each.

    The size of a box is the root of its area, the ranges overlap, and a box may be on several
    levels. On each, the cells whose centres lie in the box shrunk around its centre to
    ``sigma`` of its width and height are positive, or those nearest to it if it lies beyond the
    map. A small box often has none, on any level. Of several boxes the smallest one gets a cell,
    of equally small ones the last. No location gets an ignore label.

    Locations beyond an image (``valid``) are like others, as in the reference.

    Args:
        strides: pixels between the locations of each level, which lie in the middle of cells.
        size_ranges: for each level the smallest and the largest size, pixels, both included.
        sigma: share of a side that is positive, in (0, 1].
        max_pairs: bound on the (box, location) pairs held at once.

    Raises:
        ValueError: the lengths differ, or ``sigma`` is out of range.
    """

    point_offset = 0.5  # where the reference's locations lie in their cells, in strides

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        size_ranges: Sequence[Sequence[float]] = (
            (1, 64),
            (32, 128),
            (64, 256),
            (128, 512),
            (256, 2048),
        ),
        sigma: float = 0.4,
        max_pairs: int = 4_000_000,
    ) -> None:
        if len(strides) != len(size_ranges):
            raise ValueError(
                f"size_ranges {list(size_ranges)} must be one for each of the strides "
                f"{list(strides)}"
            )
        if not 0.0 < sigma <= 1.0:
            raise ValueError(f"sigma must lie in (0, 1], got {sigma}")
        self.strides = tuple(strides)
        self.size_ranges = tuple((low, high) for low, high in size_ranges)
        self.sigma = sigma
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
        none = anchors.new_full((len(anchors),), -1, dtype=torch.int64)
        if len(gt_boxes) == 0:
            return SingleMatch(none)
        points, gt_boxes = (anchors[:, :2] + anchors[:, 2:]).float() / 2, gt_boxes.float()
        sizes = (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(-1).sqrt()
        # From large to small: the last box that wants a location gets it.
        order = (-sizes).sort(stable=True).indices
        rank = torch.arange(len(order), device=order.device)[:, None]
        best, start = [], 0
        for size, stride, (low, high) in zip(
            level_sizes, self.strides, self.size_ranges, strict=True
        ):
            cells = points[start : start + size] / stride - self.point_offset
            on_level = ((sizes >= low) & (sizes <= high))[order]
            found = none[start : start + size]
            for boxes, ranks, present in zip(
                *(box_chunks(x, size, self.max_pairs) for x in (gt_boxes[order], rank, on_level)),
                strict=True,
            ):
                wanted = self._fovea(cells, boxes / stride) & present[:, None]
                found = torch.maximum(found, torch.where(wanted, ranks, -1).amax(0))
            best.append(found)
            start += size
        ranks = torch.cat(best)
        return SingleMatch(torch.where(ranks >= 0, order[ranks.clamp(min=0)], -1))

    def _fovea(self, cells: Tensor, boxes: Tensor) -> Tensor:
        """(M, r) bool from column and row (r, 2) of one level's cells and boxes (M, 4) in cells."""
        half = 0.5 * (boxes[:, 2:] - boxes[:, :2])
        last = cells.amax(0)
        first_cell = (boxes[:, :2] + (1 - self.sigma) * half - 0.5).ceil()
        last_cell = (boxes[:, :2] + (1 + self.sigma) * half - 0.5).floor()
        low = first_cell.clamp(min=0).minimum(last)[:, None]
        high = last_cell.clamp(min=0).minimum(last)[:, None]
        return ((cells >= low) & (cells <= high)).all(-1)
