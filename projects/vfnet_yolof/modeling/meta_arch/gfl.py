"""GFL (Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes)."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor
from torch.nn import functional as F

from ..box_coders import boxes_to_distances, distances_to_boxes
from ..heads.predictions import SidePredictions
from ..losses import QualityFocalLoss, check_nonnegative, giou_loss, synced_mean
from ..postprocess import Detections
from ..quality import IoUTarget, Positives, PredictedScore
from ..range_monitor import RangeMonitor
from .base import ExtraFields, PointDetector, Targets, flatten_rows


@META_ARCH_REGISTRY.register()
class GFL(PointDetector):
    """Qualified scores and distributed boxes, with the losses of equation 11.

    Box losses are in units of the stride, weighted with a quality and divided by the sum of the
    weights; the classification loss is divided by the number of positives, where an image
    without any counts as one.

    ``detect(inputs, fields=("distributions",))`` adds what is known about the sides of the
    detections, in the order left, top, right, bottom and the pixels of the output: ``side_mean``,
    ``side_std`` (D, 4), ``side_entropy`` (D, 4) in nats, the location ``side_points`` (D, 2) that
    distances start from, and of a :class:`GeneralDistribution` ``side_probabilities`` (D, 4, bins)
    with ``side_intervals`` (D, 4) between the bins. A :class:`DiracDelta` has none of this.

    Args:
        cls_loss: sum over locations and classes, given sparse positives and their quality;
            :class:`QualityFocalLoss` by default; :class:`FocalLoss` and :class:`GuidedFocalLoss`
            are table 1a's comparisons.
        cls_quality: measure that ``cls_loss`` is given, see :mod:`vfnet_yolof.modeling.quality`;
            the IoU by default.
        box_quality: measure that weights the box losses; the predicted score by default.
        quality: measure that the head's quality branch learns with a binary cross entropy; the
            branch's prediction is the factor on the scores at test time. None for a head without
            the branch.
        box_weight: weight of the GIoU loss (lambda 0).
        dfl_weight: weight of the representation's own loss, averaged over the sides (lambda 1);
            0 or None to train the boxes with the GIoU loss alone.
        quality_weight: weight of the quality branch's loss.
        min_positives: see :class:`PointDetector`. **kwargs: see there.

    Raises:
        ValueError: the head's quality branch and ``quality`` do not go together, ``dfl_weight``
            is given for a representation without a distribution, or a weight is negative.
    """

    @configurable
    def __init__(
        self,
        *,
        cls_loss: Any = None,
        cls_quality: Any = None,
        box_quality: Any = None,
        quality: Any = None,
        box_weight: float = 2.0,
        dfl_weight: float | None = 0.25,
        quality_weight: float = 1.0,
        min_positives: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(min_positives=min_positives, **kwargs)
        self.cls_loss = cls_loss if cls_loss is not None else QualityFocalLoss()
        self.cls_quality = cls_quality if cls_quality is not None else IoUTarget()
        self.box_quality = box_quality if box_quality is not None else PredictedScore()
        self.quality = quality
        self.box_weight = box_weight
        self.dfl_weight = dfl_weight or 0.0
        self.quality_weight = quality_weight
        self.representation = self.head.representation
        self.range_monitor = RangeMonitor(self.representation.max_distance)
        self._check()

    def _check(self) -> None:
        check_nonnegative(
            box_weight=self.box_weight,
            dfl_weight=self.dfl_weight,
            quality_weight=self.quality_weight,
        )
        if (self.quality is None) != (self.head.quality is None):
            raise ValueError(
                "a quality branch needs both head.quality=True and model.quality, the measure it "
                f"learns; got a head {'without' if self.head.quality is None else 'with'} the "
                f"branch and quality={self.quality!r}"
            )
        if self.representation.loss_name is None and self.dfl_weight:
            raise ValueError(
                f"{type(self.representation).__name__} has no distribution: it needs dfl_weight=0"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Constructor arguments from yacs keys, see :mod:`vfnet_yolof.modeling.yacs`."""
        from ..yacs import gfl_arguments

        return gfl_arguments(cfg)

    def losses(self, predictions: SidePredictions, targets: Targets) -> dict[str, Tensor]:
        """Weighted losses of equation 11, by name."""
        logits = flatten_rows(predictions.logits)
        raw = flatten_rows(predictions.sides)[targets.pos_idx]
        stride = targets.strides[:, None]
        points, boxes = targets.points / stride, targets.boxes / stride
        pred_boxes = distances_to_boxes(points, self.representation.decode(raw))
        positives = Positives(points, boxes, pred_boxes.detach(), logits.detach()[targets.pos_idx])
        ltrb = boxes_to_distances(points, boxes)
        self.range_monitor(ltrb)

        losses = {}
        # Without positives the empty sums are 0 and still part of the graph.
        weight = self.box_quality(positives)
        divisor = synced_mean(weight.sum())
        giou = (giou_loss(pred_boxes, boxes) * weight).sum() / divisor
        losses["loss_box"] = self.box_weight * giou
        if self.dfl_weight:
            side = self.representation.side_loss(raw, ltrb).mean(1)
            losses[self.representation.loss_name] = (
                self.dfl_weight * (side * weight).sum() / divisor
            )
        if self.quality is not None:
            bce = F.binary_cross_entropy_with_logits(
                flatten_rows(predictions.quality_logits)[targets.pos_idx, 0],
                self.quality(positives),
                reduction="sum",
            )
            losses["loss_quality"] = self.quality_weight * bce / targets.num_pos

        measured = self.cls_quality(positives)
        cls = self.cls_loss(logits, targets.pos_idx, targets.classes, measured, targets.valid)
        losses["loss_cls"] = cls / targets.num_pos
        return losses

    def decode_sides(self, raw: Tensor, level: int) -> Tensor:
        return self.representation.decode(raw.float()) * self.points.strides[level]

    @property
    def extra_fields(self) -> Mapping[str, ExtraFields]:
        """``"distributions"``, see the class; nothing without them."""
        if self.representation.loss_name is None:
            return {}
        return {"distributions": self._distributions}

    def _distributions(
        self,
        detections: Detections,
        predictions: SidePredictions,
        image: int,
        scale: tuple[float, float],
    ) -> dict[str, Tensor]:
        points, raw = self.detected_at(detections, predictions.sides, image)
        raw = raw.float()
        stride = raw.new_tensor(self.points.strides)[detections.level][:, None].expand(-1, 4)
        found = self.representation.statistics(raw)
        scales = raw.new_tensor([*scale, *scale])
        fields = {
            "side_points": points * scales[:2],
            "side_mean": found.mean * stride * scales,
            "side_std": found.std * stride * scales,
            "side_entropy": found.entropy,
        }
        if found.probabilities is not None:
            fields["side_probabilities"] = found.probabilities
            fields["side_intervals"] = self.representation.interval * stride * scales
        return fields
