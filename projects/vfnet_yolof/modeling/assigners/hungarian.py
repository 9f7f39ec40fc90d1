"""One anchor for each box, at the smallest total cost (DETR, section 3.1; YOLOF, table 5e)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from .atss import box_chunks
from .match import PairMatch

try:
    from scipy.optimize import linear_sum_assignment
except ImportError as error:
    raise ImportError(
        "Hungarian matching needs scipy: pip install 'vfnet-yolof[hungarian]'"
    ) from error


class HungarianAssigner:
    """Boxes and predictions matched one to one.

    YOLOF's paper names DETR's matching and leaves its cost open. Here the cost of a prediction for
    a box is

        -cls_weight * p - giou_weight * GIoU + l1_weight * |b - b'|_1 / box_scale

    with p the score of the box's class (the sigmoid of its logit), DETR's weights, and b, b' the
    (cx, cy, w, h) of the predicted box and of the box in pixels. DETR divides them by the size of
    the image; here it is a constant of that order, so that an image's padding changes
    nothing. All anchors that are not matched are background; nothing is ignored.

    The cost is found on the device of the predictions and assigned on the CPU by scipy, in a time
    that grows with the number of boxes squared.

    Args:
        cls_weight, l1_weight, giou_weight: of the three terms.
        box_scale: pixels that make a distance of 1.
        max_pairs: bound on the (box, anchor) pairs of the intermediate results held at once; the
            cost itself has 4 bytes for each pair.
    """

    def __init__(
        self,
        cls_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        box_scale: float = 1000.0,
        max_pairs: int = 1_000_000,
    ) -> None:
        if box_scale <= 0:
            raise ValueError(f"box_scale must be positive, got {box_scale}")
        self.cls_weight = cls_weight
        self.l1_weight = l1_weight
        self.giou_weight = giou_weight
        self.box_scale = box_scale
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
        """See :class:`.Assigner`; predictions and classes decide, anchors and levels do not.

        Returns:
            min(M, R) pairs in the boxes' order. No anchor and no box stands in two of them.

        Raises:
            ValueError: predictions or classes are None.
            FloatingPointError: a prediction is not finite.
        """
        if pred_boxes is None or pred_logits is None or gt_classes is None:
            raise ValueError(
                "Hungarian matching needs pred_boxes, pred_logits and gt_classes: what is "
                "predicted at the anchors, and the classes of the boxes"
            )
        if valid is not None:
            return self(
                anchors[valid],
                gt_boxes,
                pred_boxes=pred_boxes[valid],
                pred_logits=pred_logits[valid],
                gt_classes=gt_classes,
            ).spread(valid)
        costs = [
            self.cost(boxes, classes, pred_boxes.float(), pred_logits.float())
            for boxes, classes in zip(
                box_chunks(gt_boxes.float(), len(anchors), self.max_pairs),
                box_chunks(gt_classes, len(anchors), self.max_pairs),
                strict=True,
            )
        ]
        cost = torch.cat(costs).cpu()
        if not cost.isfinite().all():
            raise FloatingPointError(
                "the predictions are not finite, so that no cost can be found for them: training "
                "diverged; lower the learning rate, warm up for longer or clip the gradients"
            )
        gt_idx, anchor_idx = (
            torch.from_numpy(idx).to(anchors.device) for idx in linear_sum_assignment(cost.numpy())
        )
        return PairMatch(
            anchor_idx,
            gt_idx,
            torch.zeros_like(gt_idx, dtype=torch.bool),
            torch.zeros_like(anchors[:, 0], dtype=torch.bool),
        )

    def cost(
        self, gt_boxes: Tensor, gt_classes: Tensor, pred_boxes: Tensor, pred_logits: Tensor
    ) -> Tensor:
        """(M, R) float32 cost of each prediction for each box; arguments as of a call."""
        scores = pred_logits.t()[gt_classes].sigmoid()
        numbers, pred_numbers = (
            box_convert(boxes, "xyxy", "cxcywh") / self.box_scale
            for boxes in (gt_boxes, pred_boxes)
        )
        return (
            -self.cls_weight * scores
            + self.l1_weight * torch.cdist(numbers, pred_numbers, p=1)
            - self.giou_weight * generalized_box_iou(gt_boxes, pred_boxes)
        )
