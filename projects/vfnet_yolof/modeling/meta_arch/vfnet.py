"""VFNet (VarifocalNet: An IoU-aware Dense Object Detector)."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes
from torch import Tensor

from ...layers.star_conv import star_points
from ..box_coders import distances_to_boxes
from ..heads.predictions import PointPredictions
from ..losses import VarifocalLoss, aligned_iou, check_nonnegative, giou_loss, synced_mean
from ..postprocess import Detections
from .base import ExtraFields, PointDetector, Targets, flatten_rows

MIN_IOU = 1e-6  # the reference's lower bound: a positive's box keeps some weight


@META_ARCH_REGISTRY.register()
class VFNet(PointDetector):
    """IoU-aware dense detector (section 4.5) with the losses of equation 3.

    ``detect(inputs, fields=("star",))`` adds ``init_boxes`` (Boxes), the boxes before refinement,
    and ``star_points`` (D, 9, 2), the (x, y) of the sampling points, in the pixels of the output.

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

    @configurable
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
        self.box_init_weight = box_init_weight
        self.box_weight = box_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Constructor arguments from yacs keys, see :mod:`vfnet_yolof.modeling.yacs`."""
        from ..yacs import vfnet_arguments

        return vfnet_arguments(cfg)

    def losses(self, predictions: PointPredictions, targets: Targets) -> dict[str, Tensor]:
        """Weighted losses of equation 3, by name."""
        losses = {}
        if predictions.ltrb_init is not None:
            loss, _ = _weighted_giou_loss(flatten_rows(predictions.ltrb_init), targets)
            losses["loss_box_init"] = loss * self.box_init_weight
        loss, iou = _weighted_giou_loss(flatten_rows(predictions.ltrb), targets)
        losses["loss_box"] = loss * self.box_weight

        logits = flatten_rows(predictions.logits)
        loss = self.cls_loss(logits, targets.pos_idx, targets.classes, iou, targets.valid)
        losses["loss_cls"] = loss / targets.num_pos
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
        initial = predictions.ltrb_init or predictions.ltrb
        centers, ltrb = self.detected_at(detections, initial, image)
        boxes = Boxes(distances_to_boxes(centers, ltrb))
        boxes.scale(*scale)
        return {
            "init_boxes": boxes,
            "star_points": star_points(centers, ltrb) * ltrb.new_tensor(scale),
        }


def _weighted_giou_loss(ltrb: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """GIoU loss weighted by the IoU with the ground truth and divided by the weights' sum.

    Args:
        ltrb: (N * R, 4) distances in pixels.

    Returns:
        The loss, and the IoU (P,) of the positives without gradient.
    """
    boxes = distances_to_boxes(targets.points, ltrb[targets.pos_idx])
    iou = aligned_iou(boxes.detach(), targets.boxes)
    weight = iou.clamp(min=MIN_IOU)
    # Without positives the empty sum is 0 and still part of the graph, which distributed
    # training waits for.
    return (giou_loss(boxes, targets.boxes) * weight).sum() / synced_mean(weight.sum()), iou
