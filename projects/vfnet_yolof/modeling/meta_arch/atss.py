"""FCOS+ATSS with centerness: the baseline that VFNet and GFL start from."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor
from torch.nn import functional as F

from ..box_coders import boxes_to_distances, distances_to_boxes
from ..heads.predictions import PointPredictions
from ..losses import (
    FocalLoss,
    aligned_iou,
    centerness_target,
    check_nonnegative,
    check_share,
    giou_loss,
    synced_mean,
)
from .base import PointDetector, Targets, flatten_rows


@META_ARCH_REGISTRY.register()
class ATSS(PointDetector):
    """FCOS with adaptive training sample selection (ATSS, section 4).

    The losses of classification and centerness are divided by the number of positives, where an
    image without any counts as one.

    Args:
        cls_loss: as in :class:`VFNet`; the focal loss by default. Its quality is the IoU of the
            predicted box with the ground truth, as there: centerness is for boxes and scores.
        box_weight: weight of the GIoU loss, which is itself weighted by the centerness of the
            location and divided by the sum of these.
        centerness_weight: weight of the centerness branch's binary cross entropy.
        min_centerness_sum: the box loss is divided by 1 where the sum is smaller than this. 1e-12
            is the rule of VFNet's authors, whose table 3 has this detector; 1 is that of
            MMDetection 3.3.
        min_positives: see :class:`PointDetector`. **kwargs: see there.

    Raises:
        ValueError: a weight is negative, or ``min_centerness_sum`` is not in [0, 1].
    """

    @configurable
    def __init__(
        self,
        *,
        cls_loss: Any = None,
        box_weight: float = 2.0,
        centerness_weight: float = 1.0,
        min_centerness_sum: float = 1e-12,
        min_positives: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(min_positives=min_positives, **kwargs)
        check_nonnegative(box_weight=box_weight, centerness_weight=centerness_weight)
        check_share(min_centerness_sum=min_centerness_sum)
        self.cls_loss = cls_loss if cls_loss is not None else FocalLoss()
        self.box_weight = box_weight
        self.centerness_weight = centerness_weight
        self.min_centerness_sum = min_centerness_sum

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Constructor arguments from yacs keys, see :mod:`vfnet_yolof.modeling.yacs`."""
        from ..yacs import atss_arguments

        return atss_arguments(cfg)

    def losses(self, predictions: PointPredictions, targets: Targets) -> dict[str, Tensor]:
        """Weighted losses by name."""
        if predictions.centerness is None:
            raise ValueError("ATSS needs a head with centerness=True")
        logits = flatten_rows(predictions.logits)
        ltrb = flatten_rows(predictions.ltrb)
        centerness_logits = flatten_rows(predictions.centerness)[:, 0]

        boxes = distances_to_boxes(targets.points, ltrb[targets.pos_idx])
        centerness = centerness_target(boxes_to_distances(targets.points, targets.boxes))
        giou = (giou_loss(boxes, targets.boxes) * centerness).sum()
        giou = giou / self._box_divisor(centerness)
        bce = F.binary_cross_entropy_with_logits(
            centerness_logits[targets.pos_idx], centerness, reduction="sum"
        )
        iou = aligned_iou(boxes.detach(), targets.boxes)
        cls = self.cls_loss(logits, targets.pos_idx, targets.classes, iou, targets.valid)
        return {
            "loss_cls": cls / targets.num_pos,
            "loss_box": self.box_weight * giou,
            "loss_centerness": self.centerness_weight * bce / targets.num_pos,
        }

    def _box_divisor(self, centerness: Tensor) -> Tensor:
        total = synced_mean(centerness.sum(), minimum=0.0)
        return torch.where(total < self.min_centerness_sum, 1.0, total)
