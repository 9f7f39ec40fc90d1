"""GFL (Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes), and ATSS."""

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..boxes import aligned_iou, boxes_to_distances, centerness_target, giou_loss
from ..heads import PointPredictions
from ..losses import (
    FocalLoss,
    QualityFocalLoss,
    check_no_background,
    check_nonnegative,
    check_share,
    synced_mean,
)
from ..postprocess import Detections
from .base import PointDetector, log_scalar
from .outputs import ExtraFields, Predicted, Targets

WARN_ABOVE = 0.01


class Positives(NamedTuple):
    """Positive locations, their boxes and what was predicted there; nothing carries a gradient.

    Attributes:
        points: (P, 2). boxes, pred_boxes: (P, 4) xyxy of the ground truth and the prediction. All
            in the same unit.
        logits: (P, K) classification scores before the sigmoid.
    """

    points: Tensor
    boxes: Tensor
    pred_boxes: Tensor
    logits: Tensor


class CenternessTarget:
    """Centerness of the location in the ground truth (FCOS).

    Attributes:
        reads: of every measure: which of the head's predictions it looks at.
    """

    reads: tuple[str, ...] = ()

    def __call__(self, positives: Positives) -> Tensor:
        """(P,) in [0, 1]."""
        return centerness_target(boxes_to_distances(positives.points, positives.boxes))


class IoUTarget:
    """IoU of the predicted box with the ground truth."""

    reads: tuple[str, ...] = ("sides",)

    def __call__(self, positives: Positives) -> Tensor:
        """(P,) in [0, 1]."""
        return aligned_iou(positives.pred_boxes, positives.boxes)


class PredictedScore:
    """The best class score: what a joint representation itself says about the quality."""

    reads: tuple[str, ...] = ("logits",)

    def __call__(self, positives: Positives) -> Tensor:
        """(P,) in [0, 1]."""
        return positives.logits.sigmoid().amax(1)


class EqualQuality:
    """1 for every positive."""

    reads: tuple[str, ...] = ()

    def __call__(self, positives: Positives) -> Tensor:
        """(P,) ones."""
        return torch.ones_like(positives.logits[:, 0])


class GFL(PointDetector):
    """Generalized Focal Loss: scores that include box quality, distributions over box sides.

    The losses are those of equation 11. Box losses are weighted with a quality and divided by the
    sum of the weights; the classification loss is divided by the sum over images of max(positives,
    1).

    FCOS+ATSS with centerness, the baseline that VFNet and GFL start from, is this detector with a
    :class:`DiracDelta` (in ATSS's own code :class:`AnchorDeltas`), the focal loss, and
    :class:`CenternessTarget` as ``quality`` and ``box_quality``: see :func:`ATSS`.

    ``detect(inputs, fields=("distributions",))`` adds the distributions of the sides of the D
    detections, in the order left, top, right, bottom; lengths are in pixels of the output:

    - ``side_mean``, ``side_std`` (D, 4), and ``side_entropy`` (D, 4) in nats;
    - ``side_points`` (D, 2), the location that distances start from;
    - with a :class:`GeneralDistribution` also ``side_probabilities`` (D, 4, bins) and
      ``side_intervals`` (D, 4), the width of a bin.

    A :class:`DiracDelta` has no distributions; asking for them raises TypeError.

    Args:
        cls_loss: classification loss, see :class:`.ClassificationLoss` for its call;
            :class:`QualityFocalLoss` by default; :class:`FocalLoss` and :class:`GuidedFocalLoss`
            are table 1a's comparisons.
        cls_quality: quality measure that is the target in ``cls_loss``, :class:`IoUTarget` by
            default; :class:`CenternessTarget`, :class:`PredictedScore` and :class:`EqualQuality`
            are others.
        box_quality: quality measure that weights the box losses; the predicted score by default.
        quality: quality measure that the head's quality branch (centerness in FCOS and ATSS)
            learns, with binary cross entropy; at test time the branch's prediction multiplies the
            scores. None for a head without the branch.
        box_weight: weight of the GIoU loss (lambda 0).
        dfl_weight: weight of the representation's own loss, averaged over the sides (lambda 1);
            0 or None to train the boxes with the GIoU loss alone.
        quality_weight: weight of the quality branch's loss.
        min_quality_sum: box losses are divided by the sum of their weights; if the sum is smaller
            than ``min_quality_sum`` they are divided by 1 instead. GFL and MMDetection 3.3's ATSS
            use 1, the ATSS of VFNet's authors 1e-12.
        min_positives: see :class:`PointDetector`. **kwargs: see there.

    Raises:
        ValueError: the head's quality branch and ``quality`` do not go together, ``dfl_weight``
            is given for a representation without a distribution, a weight is negative, or
            ``min_quality_sum`` is not in [0, 1].
    """

    box_loss_name = "GIoU loss"

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
        min_quality_sum: float = 1.0,
        min_positives: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(min_positives=min_positives, **kwargs)
        self.cls_loss = cls_loss if cls_loss is not None else QualityFocalLoss()
        check_no_background(self.cls_loss)
        self.cls_quality = cls_quality if cls_quality is not None else IoUTarget()
        self.box_quality = box_quality if box_quality is not None else PredictedScore()
        self.quality = quality
        self.box_weight = box_weight
        self.dfl_weight = dfl_weight or 0.0
        self.quality_weight = quality_weight
        self.min_quality_sum = min_quality_sum
        limit = self.representation.max_distance
        self.range_monitor = RangeMonitor(limit) if math.isfinite(limit) else None
        self._check()

    def _check(self) -> None:
        check_nonnegative(
            box_weight=self.box_weight,
            dfl_weight=self.dfl_weight,
            quality_weight=self.quality_weight,
        )
        check_share(min_quality_sum=self.min_quality_sum)
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

    @property
    def box_geometry(self) -> str:
        """What boxes the weights mean, where their names and shapes do not tell."""
        return getattr(self.representation, "box_geometry", "")

    def losses_of(self, predicted: Predicted, targets: Targets) -> dict[str, Tensor]:
        """Weighted losses of equation 11, by name."""
        logits, boxes = predicted.logits, targets.boxes
        positives = Positives(
            targets.points, boxes, predicted.boxes.detach(), logits.detach()[targets.pos_idx]
        )
        ltrb = boxes_to_distances(targets.points, boxes) / targets.strides[:, None]
        if self.range_monitor is not None:
            self.range_monitor(ltrb)

        losses = {}
        # Without positives the empty sums are 0 and still part of the graph.
        weight = self.box_quality(positives)
        divisor = synced_mean(weight.sum(), minimum=0.0)
        divisor = torch.where(divisor < self.min_quality_sum, 1.0, divisor)
        giou = (giou_loss(predicted.boxes, boxes) * weight).sum() / divisor
        losses["loss_box"] = self.box_weight * giou
        if self.dfl_weight:
            side = self.representation.side_loss(predicted.raw, ltrb).mean(1)
            losses[self.representation.loss_name] = (
                self.dfl_weight * (side * weight).sum() / divisor
            )
        if self.quality is not None:
            assert predicted.quality_logits is not None, "the head has no quality branch"
            bce = F.binary_cross_entropy_with_logits(
                predicted.quality_logits, self.quality(positives), reduction="sum"
            )
            losses["loss_quality"] = self.quality_weight * bce / targets.num_pos

        measured = self.cls_quality(positives)
        cls = self.cls_loss(logits, targets.pos_idx, targets.classes, measured, targets.valid)
        losses["loss_cls"] = cls / targets.num_pos
        return losses

    @property
    def extra_fields(self) -> Mapping[str, ExtraFields]:
        """``"distributions"``, see the class; nothing without them."""
        if self.representation.loss_name is None:
            return {}
        return {"distributions": self._distributions}

    def _distributions(
        self,
        detections: Detections,
        predictions: PointPredictions,
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


def ATSS(
    *,
    cls_loss: Any = None,
    centerness_weight: float = 1.0,
    min_centerness_sum: float = 1e-12,
    **options: Any,
) -> GFL:
    """FCOS+ATSS with centerness (ATSS, section 4), by the names that saved configurations have.

    Args:
        cls_loss: the focal loss by default. Its quality is the IoU of the predicted box with the
            ground truth: centerness is for boxes and scores.
        centerness_weight, min_centerness_sum: ``quality_weight`` and ``min_quality_sum``.
        **options: see :class:`GFL`; the head has a quality branch and no distribution.
    """
    return GFL(
        cls_loss=cls_loss if cls_loss is not None else FocalLoss(),
        quality=CenternessTarget(),
        box_quality=CenternessTarget(),
        dfl_weight=0.0,
        quality_weight=centerness_weight,
        min_quality_sum=min_centerness_sum,
        **options,
    )


class RangeMonitor(nn.Module):
    """Counts targets beyond a limit over the whole training, and warns once above 1 %.

    Only passes with gradients count: they are those that train. Validation losses and the first
    of gradient accumulation's two passes over a batch are computed without.

    Counting stays on the device. Every ``period`` counted passes the counts are read, which waits
    for the device, and their ratio is logged as ``dfl_out_of_range``; no other step waits. In
    distributed training every worker counts its own share of the data.

    Args:
        limit: longest distance that can be expressed, in strides.
        period: counted passes between two readings.
    """

    beyond: Tensor
    total: Tensor

    def __init__(self, limit: float, period: int = 100) -> None:
        super().__init__()
        self.limit = limit
        self.period = period
        self.warned = False
        self._steps = 0
        # Not part of checkpoints: a resumed run counts anew.
        for name in ("beyond", "total"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, ltrb: Tensor) -> None:
        """Count distances (P, 4) in strides, if this is a pass with gradients."""
        if torch.is_grad_enabled():
            self._count(ltrb.detach())

    @torch.no_grad()
    def _count(self, ltrb: Tensor) -> None:
        self.beyond += (ltrb > self.limit).sum()
        self.total += ltrb.numel()
        self._steps += 1
        if self._steps % self.period == 0:
            self._report()

    def _report(self) -> None:
        beyond, total = torch.stack([self.beyond, self.total]).tolist()
        ratio = beyond / max(1, total)
        log_scalar("dfl_out_of_range", ratio)
        if ratio > WARN_ABOVE and not self.warned:
            self.warned = True
            warnings.warn(
                f"{ratio:.1%} of the box sides seen so far are longer than the {self.limit:g} "
                "strides that the head can express, and their boxes will come out too small: raise "
                "reg_max (model.head.representation.reg_max, or MODEL.GFL.REG_MAX) or add "
                "coarser levels",
                stacklevel=2,
            )
