"""Bounding the memory of an assignment."""

from torch import Tensor


def box_chunks(gt_boxes: Tensor, num_locations: int, max_pairs: int) -> tuple[Tensor, ...]:
    """Boxes (M, 4) in pieces such that a piece times ``num_locations`` is at most ``max_pairs``."""
    return gt_boxes.split(max(1, max_pairs // max(1, num_locations)))
