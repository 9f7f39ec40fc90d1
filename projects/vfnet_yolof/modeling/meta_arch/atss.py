"""FCOS+ATSS with centerness: the baseline that VFNet and GFL start from."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor
from torch.nn import functional as F

from ..box_coders import boxes_to_distances, distances_to_boxes
from ..heads.predictions import PointPredictions
from ..losses import FocalLoss, centerness_target, giou_loss, synced_mean
from .base import PointDetector, Targets, flatten_rows


@META_ARCH_REGISTRY.register()
class ATSS(PointDetector):
    """FCOS with adaptive training sample selection (ATSS, section 4).

    Args:
        cls_loss: as in :class:`VFNet`; the focal loss by default.
        box_weight: weight of the GIoU loss, which is itself weighted by the centerness of the
            location.
        centerness_weight: weight of the centerness branch's binary cross entropy.
        **kwargs: see :class:`PointDetector`.
    """

    @configurable
    def __init__(
        self,
        *,
        cls_loss: Any = None,
        box_weight: float = 2.0,
        centerness_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cls_loss = cls_loss if cls_loss is not None else FocalLoss()
        self.box_weight = box_weight
        self.centerness_weight = centerness_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Constructor arguments from yacs keys, see :mod:`vfnet_yolof.yacs`."""
        from ...yacs import atss_arguments

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
        giou = giou / synced_mean(centerness.sum())
        bce = F.binary_cross_entropy_with_logits(
            centerness_logits[targets.pos_idx], centerness, reduction="sum"
        )
        cls = self.cls_loss(logits, targets.pos_idx, targets.classes, centerness)
        return {
            "loss_cls": cls / targets.num_pos,
            "loss_box": self.box_weight * giou,
            "loss_centerness": self.centerness_weight * bce / targets.num_pos,
        }
