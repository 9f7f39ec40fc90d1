"""Centerness (FCOS, section 3.3, equation 3)."""

from torch import Tensor


def centerness_target(ltrb: Tensor) -> Tensor:
    """How central a point lies in its box: distances (..., 4) to the sides -> (...) in [0, 1].

    A point on a side, or outside of the box, has centerness 0.
    """
    left, top, right, bottom = ltrb.clamp(min=0).unbind(-1)
    horizontal = left.minimum(right) / left.maximum(right).clamp(min=1e-6)
    vertical = top.minimum(bottom) / top.maximum(bottom).clamp(min=1e-6)
    return (horizontal * vertical).sqrt()
