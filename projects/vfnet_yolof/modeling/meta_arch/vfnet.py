"""VFNet (VarifocalNet: An IoU-aware Dense Object Detector)."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...layers.star_conv import star_points
from ..box_coders import distances_to_boxes
from ..heads.predictions import PointPredictions
from ..losses import VarifocalLoss, aligned_iou, check_nonnegative, giou_loss, synced_mean
from ..postprocess import Detections
from .base import PointDetector, Targets, detection_rows, flatten_levels, flatten_rows

MIN_IOU = 1e-6  # the reference's lower bound: a positive's box keeps some weight


@META_ARCH_REGISTRY.register()
class VFNet(PointDetector):
    """IoU-aware dense detector (section 4.5) with the losses of equation 3.

    Args:
        cls_loss: sum over locations and classes, given sparse positives;
            :class:`VarifocalLoss` or, for the comparison, :class:`FocalLoss`.
        box_init_weight: weight of the initial boxes' GIoU loss (lambda 0).
        box_weight: weight of the final boxes' GIoU loss (lambda 1). If the head does not
            refine, its only box is the final one. Both losses are weighted by the box's IoU and
            divided by the sum of these, at least 1.
        keep_star: add ``init_boxes`` and ``star_points`` to the detections, in the pixels of
            the output image, for drawing.
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
        keep_star: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_nonnegative(box_init_weight=box_init_weight, box_weight=box_weight)
        self.cls_loss = cls_loss if cls_loss is not None else VarifocalLoss()
        self.box_init_weight = box_init_weight
        self.box_weight = box_weight
        self.keep_star = keep_star

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Constructor arguments from yacs keys, see :mod:`vfnet_yolof.yacs`."""
        from ...yacs import vfnet_arguments

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

    def finish(
        self,
        detections: Detections,
        predictions: PointPredictions,
        points: Sequence[Tensor],
        image: int,
    ) -> Instances:
        instances = detections.instances
        if not self.keep_star:
            return instances
        rows = detection_rows(detections, points)
        initial = predictions.ltrb_init or predictions.ltrb
        ltrb = torch.cat([x[image] for x in flatten_levels(initial)])[rows]
        centers = torch.cat(list(points))[rows]
        instances.init_boxes = Boxes(distances_to_boxes(centers, ltrb))
        instances.star_points = star_points(centers, ltrb)
        return instances

    def rescale_fields(self, instances: Instances, scale_x: float, scale_y: float) -> None:
        if not self.keep_star:
            return
        instances.init_boxes.scale(scale_x, scale_y)
        scale = instances.star_points.new_tensor([scale_x, scale_y])
        instances.star_points = instances.star_points * scale


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
