"""What heads with one box for each location return."""

from typing import NamedTuple

from torch import Tensor


class PointPredictions(NamedTuple):
    """Raw predictions, one entry for each pyramid level.

    Attributes:
        logits: (N, K, H, W) classification scores before the sigmoid.
        ltrb: (N, 4, H, W) distances in pixels, float32, from the location to the left, top,
            right and bottom side of the final box.
        ltrb_init: the same for the box before its refinement; None if boxes are not refined.
        centerness: (N, 1, H, W) logits; None without a centerness branch.
    """

    logits: list[Tensor]
    ltrb: list[Tensor]
    ltrb_init: list[Tensor] | None = None
    centerness: list[Tensor] | None = None
