"""Non-maximum suppression; :mod:`vfnet_yolof.layers.soft_nms` has the other kind."""

from collections.abc import Callable

from torch import Tensor
from torchvision.ops import batched_nms
from torchvision.ops import nms as hard_nms

# (boxes, scores, classes, max_detections) -> indices of the kept boxes and their new scores
NMS = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


class HardNMS:
    """Greedy NMS, for each class by itself unless ``class_agnostic``.

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
            boxes: (P, 4) xyxy pixels. scores: (P,). classes: (P,) int64.
            max_detections: how many to keep at most.

        Returns:
            Indices (Q,) of the kept boxes and their scores (Q,), best first.
        """
        boxes, ranks = boxes.float(), scores.float()
        if self.class_agnostic:
            keep = hard_nms(boxes, ranks, self.iou_threshold)
        else:
            keep = batched_nms(boxes, ranks, classes, self.iou_threshold)
        keep = keep[:max_detections]
        return keep, scores[keep]
