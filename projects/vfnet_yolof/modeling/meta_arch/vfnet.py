"""VFNet (VarifocalNet: An IoU-aware Dense Object Detector)."""

from collections.abc import Mapping
from typing import Any

from detectron2.structures import Boxes
from torch import Tensor

from ...layers.star_conv import star_points
from ..boxes import distances_to_boxes, giou_loss_and_iou
from ..heads import PointPredictions
from ..losses import VarifocalLoss, check_no_background, check_nonnegative, synced_mean
from ..postprocess import Detections
from .base import PointDetector
from .outputs import ExtraFields, Predicted, Targets

MIN_IOU = 1e-6  # the reference's lower bound: a positive's box keeps some weight


class VFNet(PointDetector):
    """IoU-aware dense detector (section 4.5) with the losses of equation 3.

    ``detect(inputs, fields=("star",))`` adds ``init_boxes`` (Boxes), the boxes before refinement,
    and ``star_points`` (D, 9, 2), the (x, y) of the sampling points, in the pixels of the output.

    The head is :class:`.VFNetHead`. Raw VFNet (table 3) has a :class:`.GFLHead` with a
    :class:`.DiracDelta` of 8 strides instead, whose only box is the final one.

    Args:
        cls_loss: sum over locations and classes, given sparse positives;
            :class:`VarifocalLoss` or, for the comparison, :class:`FocalLoss`.
        box_init_weight: weight of the initial boxes' GIoU loss (lambda 0).
        box_weight: weight of the final boxes' GIoU loss (lambda 1). If the head does not
            refine, its only box is the final one. Both losses are weighted by the box's IoU and
            divided by the sum of these, at least 1.
        **kwargs: see :class:`PointDetector`.

    Raises:
        ValueError: a weight is negative.
    """

    box_loss_name = "IoU × GIoU loss"

    def __init__(
        self,
        *,
        cls_loss: Any = None,
        box_init_weight: float = 1.5,
        box_weight: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_nonnegative(box_init_weight=box_init_weight, box_weight=box_weight)
        self.cls_loss = cls_loss if cls_loss is not None else VarifocalLoss()
        check_no_background(self.cls_loss)
        self.box_init_weight = box_init_weight
        self.box_weight = box_weight

    def losses_of(self, predicted: Predicted, targets: Targets) -> dict[str, Tensor]:
        """Weighted losses of equation 3, by name."""
        losses = {}
        if predicted.initial_boxes is not None:
            loss, _ = _weighted_giou_loss(predicted.initial_boxes, targets.boxes)
            losses["loss_box_init"] = loss * self.box_init_weight
        loss, iou = _weighted_giou_loss(predicted.boxes, targets.boxes)
        losses["loss_box"] = loss * self.box_weight

        positives = (targets.pos_idx, targets.classes, iou, targets.valid)
        losses["loss_cls"] = self.cls_loss(predicted.logits, *positives) / targets.num_pos
        return losses

    @property
    def extra_fields(self) -> Mapping[str, ExtraFields]:
        """``"star"``, see the class."""
        return {"star": self._star}

    def _star(
        self,
        detections: Detections,
        predictions: PointPredictions,
        image: int,
        scale: tuple[float, float],
    ) -> dict[str, Boxes | Tensor]:
        initial = predictions.ltrb_init or predictions.sides
        centers, ltrb = self.detected_at(detections, initial, image)
        boxes = Boxes(distances_to_boxes(centers, ltrb))
        boxes.scale(*scale)
        return {
            "init_boxes": boxes,
            "star_points": star_points(centers, ltrb) * ltrb.new_tensor(scale),
        }


def _weighted_giou_loss(boxes: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """GIoU loss weighted by the IoU with the ground truth and divided by the weights' sum.

    Args:
        boxes, gt_boxes: (P, 4) xyxy pixels.

    Returns:
        The loss, and the IoU (P,) of the positives without gradient.
    """
    loss, iou = giou_loss_and_iou(boxes, gt_boxes)
    weight = iou.clamp(min=MIN_IOU)
    # Without positives the empty sum is 0 and still part of the graph, which distributed
    # training waits for.
    return (loss * weight).sum() / synced_mean(weight.sum()), iou
