"""The region rule of FCOS (section 3.2): the alternative to ATSS."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..boxes import boxes_to_distances
from .atss import box_chunks
from .match import SingleMatch

INFINITY = float("inf")


class FCOSAssigner:
    """Every location inside a box of its level's size range learns that box.

    A location inside several such boxes learns the smallest of them, the first one on a tie.

    Args:
        size_ranges: for each level the lower and upper bound, in pixels, on the largest of
            the four distances to the sides of the box (both inclusive, as in the reference).
        center_radius: if given, only locations within ``center_radius`` strides of the box's
            centre count (FCOS's centre sampling).
        strides: pixels between the locations of each level; needed with ``center_radius``.
        max_pairs: bound on the (box, location) pairs held at once.

    Raises:
        ValueError: ``center_radius`` is not positive, or there are not as many strides as ranges.
    """

    # Of FCOS's authors, in strides: where locations lie in their cells, and the radius of centre
    # sampling. Configs and yacs keys take both from here, so that "FCOS" means one thing.
    point_offset = 0.5
    usual_radius = 1.5

    def __init__(
        self,
        size_ranges: Sequence[tuple[float, float]] = (
            (-1, 64),
            (64, 128),
            (128, 256),
            (256, 512),
            (512, INFINITY),
        ),
        center_radius: float | None = None,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        max_pairs: int = 4_000_000,
    ) -> None:
        if center_radius is not None:
            if not center_radius > 0:
                raise ValueError(f"center_radius must be positive or None, got {center_radius}")
            if len(strides) != len(size_ranges):
                raise ValueError(
                    f"{len(strides)} strides, but {len(size_ranges)} size_ranges: center_radius "
                    "needs the stride of each level"
                )
        self.size_ranges = [tuple(r) for r in size_ranges]
        self.center_radius = center_radius
        self.strides = tuple(strides)
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
        """See :class:`.Assigner`; of the anchors only the centres have an influence.

        Raises:
            ValueError: the levels are not as many as the size ranges.
        """
        if len(level_sizes) != len(self.size_ranges):
            raise ValueError(
                f"{len(level_sizes)} feature levels, but {len(self.size_ranges)} size_ranges"
            )
        points = (anchors[:, :2] + anchors[:, 2:]) / 2
        bounds = torch.repeat_interleave(
            points.new_tensor(self.size_ranges),
            torch.tensor(level_sizes, device=points.device),
            dim=0,
            output_size=sum(level_sizes),
        )
        best_area = points.new_full((len(points),), INFINITY)
        assigned = torch.full_like(best_area, -1, dtype=torch.int64)
        first = 0
        for boxes in box_chunks(gt_boxes.float(), len(points), self.max_pairs):
            if len(boxes) == 0:
                break
            inside = self._inside(points, boxes, bounds, level_sizes)
            size = boxes[:, 2:] - boxes[:, :2]
            area = torch.where(inside, size[:, 0] * size[:, 1], INFINITY)
            area, idx = area.min(dim=1)
            better = area < best_area
            assigned = torch.where(better, idx + first, assigned)
            best_area = torch.where(better, area, best_area)
            first += len(boxes)
        return SingleMatch(assigned if valid is None else assigned.masked_fill(~valid, -1))

    def _inside(
        self, points: Tensor, boxes: Tensor, bounds: Tensor, level_sizes: Sequence[int]
    ) -> Tensor:
        """(R, M) bool: the pairs that the region and the size range allow."""
        ltrb = boxes_to_distances(points[:, None], boxes[None])
        largest = ltrb.amax(-1)
        allowed = (largest >= bounds[:, None, 0]) & (largest <= bounds[:, None, 1])
        region = ltrb.amin(-1)
        if self.center_radius is not None:
            strides = torch.repeat_interleave(
                points.new_tensor(self.strides),
                torch.tensor(level_sizes, device=points.device),
                output_size=sum(level_sizes),
            )
            center = (boxes[:, :2] + boxes[:, 2:]) / 2
            from_center = (points[:, None] - center[None]).abs().amax(-1)
            region = torch.minimum(region, self.center_radius * strides[:, None] - from_center)
        return allowed & (region > 0)
