"""Non-maximum suppression; :mod:`vfnet_yolof.layers.soft_nms` has the other kind."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

# (boxes, scores, classes, max_detections) -> indices of the kept boxes and their new scores
NMS = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]

_AT_FIRST = 1000  # boxes that are looked at before it is known whether more are needed
_EXACT_BELOW = 2.0**27  # where a float64 still has 26 bits behind the point


class HardNMS:
    """Greedy NMS, for each class by itself unless ``class_agnostic``.

    All of it is in float64, so that what is kept depends on the boxes of a class alone, whatever
    their number, the size of the image and the number of classes. Of equal scores the first of
    the input counts as the better one.

    Args:
        iou_threshold: boxes that overlap a better one by more than this are removed.
        class_agnostic: let boxes of different classes suppress each other.
    """

    def __init__(self, iou_threshold: float = 0.6, class_agnostic: bool = False) -> None:
        if not 0.0 <= iou_threshold <= 1.0:
            raise ValueError(f"iou_threshold must lie in [0, 1], got {iou_threshold}")
        self.iou_threshold = iou_threshold
        self.class_agnostic = class_agnostic

    def __call__(
        self, boxes: Tensor, scores: Tensor, classes: Tensor, max_detections: int
    ) -> tuple[Tensor, Tensor]:
        """Choose the boxes to keep.

        Args:
            boxes: (P, 4) xyxy pixels, anywhere. scores: (P,). classes: (P,) int64.
            max_detections: how many to keep at most.

        Returns:
            Indices (Q,) of the kept boxes and their scores (Q,), best first.
        """
        order = scores.argsort(descending=True, stable=True)
        count = max(_AT_FIRST, 2 * max_detections)
        while True:
            # What is kept among the best boxes does not depend on the others.
            best = order[:count]
            keep = self._among_sorted(boxes[best].double(), classes[best])[:max_detections]
            if len(keep) == max_detections or count >= len(order):
                keep = best[keep]
                return keep, scores[keep]
            count *= 4

    def _among_sorted(self, boxes: Tensor, classes: Tensor) -> Tensor:
        """Positions, in order, of what is kept of float64 boxes that are sorted by score."""
        threshold = _float32_above(self.iou_threshold)
        ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype, device=boxes.device)
        if self.class_agnostic or not len(boxes):
            return nms(boxes, ranks, threshold)
        apart = boxes_apart(boxes, classes)
        if apart is not None:
            return nms(apart, ranks, threshold)
        rows = [(classes == number).nonzero()[:, 0] for number in classes.unique()]
        keep = torch.cat([x[nms(boxes[x], ranks[x], threshold)] for x in rows])
        return keep.sort().values


def boxes_apart(boxes: Tensor, classes: Tensor) -> Tensor | None:
    """Boxes that overlap as before within a class and not at all between classes.

    Every class is moved by a whole number of pixels of its own. The sums are exact for coordinates
    that were float32 and at least 1/8 px from 0, and off by at most 2^-27 px (1e-8) for others: a
    float32 of 1/8 or more is a multiple of 2^-26, as is every float64 below 2^27.

    Args:
        boxes: (P, 4) float64 xyxy pixels, P > 0. classes: (P,) int64, at least 0.

    Returns:
        (P, 4) float64; None where the coordinates would leave that range, or are not finite.
    """
    stride = (2 * boxes.abs().amax() + 1).ceil()
    if not stride * (classes.amax() + 1) <= _EXACT_BELOW:
        return None
    return boxes + (classes * stride)[:, None]


def _float32_above(threshold: float) -> float:
    """The least float32 that is not below ``threshold``.

    The CUDA kernel rounds its threshold to float32, the one for CPUs does not. Where that is below,
    boxes whose IoU is just the threshold, 7/10 for instance, would go on one and stay on the other.
    """
    rounded = np.float32(threshold)
    if float(rounded) < threshold:
        rounded = np.nextafter(rounded, np.float32(2))
    return float(rounded)
