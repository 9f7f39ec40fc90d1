"""Detectors with several anchors for each location, on one level or several."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import ImageList, Instances
from torch import Tensor

from ..anchors import CellAnchors
from ..assigners import Assigner, Match
from ..boxes import ClampedDeltaCoder, aligned_iou
from ..heads import AnchorPredictions
from ..losses import (
    ClassificationLoss,
    FocalLoss,
    GIoUBoxLoss,
    check_nonnegative,
    loss_on_labels,
    synced_mean,
)
from ..points import valid_mask
from .base import OneStageDetector, feature_sizes, flatten_levels, log_tensor
from .outputs import DenseOutputs, PositiveRows


class AnchorTargets(NamedTuple):
    """What a batch learns; rows count through the images, then through their R anchors.

    Attributes:
        labels: (N * R,) int64, class of a positive, K for background, -1 ignored.
        valid: (N, R) bool, False where an anchor lies beyond its image's own padded size; None
            where all count. The classification loss decides what happens to the others.
        rows: (P,) int64 row of each pair's anchor; a row may stand in several pairs.
        anchors, gt_boxes: (P, 4) xyxy pixels, float32. counted: (P,) bool, pairs that are not
            ignored.
        num_foreground: scalar float32, different anchors with a class per worker (mean over
            workers), at least 1.
    """

    labels: Tensor
    valid: Tensor | None
    rows: Tensor
    anchors: Tensor
    gt_boxes: Tensor
    counted: Tensor
    num_foreground: Tensor


class AnchorDetector(OneStageDetector):
    """Classes and boxes of anchors: YOLOF, RetinaNet, SSD and what lies between.

    The head's predictions are :class:`AnchorPredictions`.

    Args:
        anchor_generator: as many anchors at each location as the head has.
        box_coder: from deltas to boxes and back.
        cls_loss: a :class:`.ClassificationLoss`; the focal loss by default. Quality is the IoU of
            the predicted box with the ground truth. A loss with a class for background goes with a
            head that has one.
        box_loss: see :mod:`vfnet_yolof.modeling.losses.box`; GIoU by default.
        box_weight: weight of the box loss.
        padding_is_background: anchors beyond an image, which are there because another one of the
            batch is larger, are background as others, as in Detectron2 and YOLOF; else they are
            as if they were not there, as in MMDetection.
        min_positives: losses are divided by the sum over images of max(positives,
            ``min_positives``), which is at least 1 for a batch: 0 in YOLOF, 1 in MMDetection.
        **kwargs: see :class:`OneStageDetector`.

    Raises:
        ValueError: head and anchor generator have different numbers of anchors, the loss and the
            head do not go together, or the weight is negative.
    """

    def __init__(
        self,
        *,
        anchor_generator: DefaultAnchorGenerator | CellAnchors,
        box_coder: ClampedDeltaCoder,
        cls_loss: ClassificationLoss | None = None,
        box_loss: Any = None,
        box_weight: float = 1.0,
        padding_is_background: bool = True,
        min_positives: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_nonnegative(box_weight=box_weight, min_positives=min_positives)
        self.anchor_generator = anchor_generator
        self.box_coder = box_coder
        self.cls_loss = cls_loss if cls_loss is not None else FocalLoss()
        self.box_loss = box_loss if box_loss is not None else GIoUBoxLoss()
        self.box_weight = box_weight
        self.padding_is_background = padding_is_background
        self.min_positives = min_positives
        self._check()

    def _check(self) -> None:
        of_head, found = self.head.num_anchors, list(self.anchor_generator.num_anchors)
        if found != (len(found) * [of_head] if isinstance(of_head, int) else list(of_head)):
            raise ValueError(
                f"the head predicts {of_head} anchors for each location, but the "
                f"anchor generator has {found} on its levels"
            )
        wanted = getattr(self.cls_loss, "has_background", False)
        if wanted != self.head.has_background:
            raise ValueError(
                f"{type(self.cls_loss).__name__} {'needs' if wanted else 'has no place for'} a "
                f"class for background, and head.has_background is {self.head.has_background}"
            )

    @property
    def box_geometry(self) -> str:
        """In which order the anchors are, where names and shapes of weights do not tell."""
        return getattr(self.anchor_generator, "box_geometry", "")

    @property
    def num_logits(self) -> int:
        """Class logits of each anchor."""
        return self.num_classes + self.head.has_background

    @torch.no_grad()
    def targets(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: AnchorPredictions,
        gt_instances: list[Instances],
    ) -> AnchorTargets:
        """Match the boxes of every image and number the pairs through the batch."""
        anchors = torch.cat([x.tensor for x in self.anchor_generator(features)])
        valid = self.valid_anchors(images, features)
        matches = self.match(anchors, predictions, gt_instances, valid=valid)
        labels = torch.stack(
            [
                match.labels(x.gt_classes, self.num_classes)
                for match, x in zip(matches, gt_instances, strict=True)
            ]
        )
        num_foreground = ((labels >= 0) & (labels < self.num_classes)).sum(1)
        log_tensor("num_pos", num_foreground.sum() / len(matches))
        return AnchorTargets(
            labels=labels.flatten(),
            valid=valid,
            rows=torch.cat([m.anchor_idx + i * len(anchors) for i, m in enumerate(matches)]),
            anchors=anchors[torch.cat([m.anchor_idx for m in matches])],
            gt_boxes=torch.cat(
                [
                    x.gt_boxes.tensor.float()[m.gt_idx]
                    for m, x in zip(matches, gt_instances, strict=True)
                ]
            ),
            counted=~torch.cat([m.ignored_pairs for m in matches]),
            num_foreground=synced_mean(num_foreground.clamp(min=self.min_positives).sum()),
        )

    @torch.no_grad()
    def valid_anchors(self, images: ImageList, features: Sequence[Tensor]) -> Tensor | None:
        """(N, R) bool: which anchors count of each image; None if all do."""
        padded = None if self.padding_is_background else self.own_padded_sizes(images)
        if padded is None:
            return None
        sizes, generator = feature_sizes(features), self.anchor_generator
        counts = [h * w for h, w in sizes]
        masks = []
        for size in padded:
            cells = valid_mask(sizes, generator.strides, size, self.device).split(counts)
            masks.append(
                torch.cat(
                    [
                        x.repeat_interleave(n, output_size=len(x) * n)
                        for x, n in zip(cells, generator.num_anchors, strict=True)
                    ]
                )
            )
        return torch.stack(masks)

    @torch.no_grad()
    def match(
        self,
        anchors: Tensor,
        predictions: AnchorPredictions,
        gt_instances: Sequence[Instances],
        assigner: Assigner | None = None,
        valid: Tensor | None = None,
    ) -> list[Match]:
        """Which of the ``anchors`` (R, 4) of each image learns which of its boxes.

        ``assigner``: another rule than the detector's. ``valid``: (N, R), see
        :meth:`valid_anchors`.
        """
        assigner = self.assigner if assigner is None else assigner
        logits = torch.cat(self.class_logits(predictions), dim=1)
        deltas = torch.cat(flatten_anchors(predictions.deltas, 4), dim=1)
        pred_boxes = self.box_coder.decode(deltas.float(), anchors)
        return [
            assigner(
                anchors,
                instances.gt_boxes.tensor,
                level_sizes=predictions.level_sizes,
                valid=None if valid is None else valid[i],
                pred_boxes=pred_boxes[i],
                pred_logits=logits[i],
                gt_classes=instances.gt_classes,
            )
            for i, instances in enumerate(gt_instances)
        ]

    def losses(self, predictions: AnchorPredictions, targets: AnchorTargets) -> dict[str, Tensor]:
        """Weighted losses by name."""
        logits = torch.cat(flatten_anchors(predictions.logits, self.num_logits), dim=1)
        deltas = torch.cat(flatten_anchors(predictions.deltas, 4), dim=1)
        labels = targets.labels.view(logits.shape[:2])
        chosen = deltas.flatten(0, 1).float()[targets.rows]
        uses_quality = getattr(self.cls_loss, "uses_quality", True)
        quality = self.quality(chosen, targets) if uses_quality else None
        cls = loss_on_labels(self.cls_loss, logits.float(), labels, quality, targets.valid)
        box = self.box_loss(self.box_coder, chosen, targets.anchors, targets.gt_boxes)
        # A mask instead of an index, whose length the host would have to wait for.
        box = torch.where(targets.counted, box, 0.0).sum()
        return {
            "loss_cls": cls / targets.num_foreground,
            "loss_box": self.box_weight * box / targets.num_foreground,
        }

    @torch.no_grad()
    def quality(self, deltas: Tensor, targets: AnchorTargets) -> Tensor:
        """(N * R,) IoU of the boxes that the pairs' (P, 4) ``deltas`` stand for; 0 without a pair.

        Of several pairs with the same anchor the last one counts, as for its label.
        """
        iou = aligned_iou(self.box_coder.decode(deltas, targets.anchors), targets.gt_boxes)
        return torch.cat([iou.new_zeros(1), iou])[last_pairs(targets)]

    def positive_rows(self, targets: AnchorTargets) -> PositiveRows:
        """See :class:`OneStageDetector`; of an anchor's pairs the last one counts."""
        rows = ((targets.labels >= 0) & (targets.labels < self.num_classes)).nonzero()[:, 0]
        pairs = last_pairs(targets)[rows] - 1
        return PositiveRows(rows, targets.labels[rows], targets.gt_boxes[pairs])

    def class_logits(self, predictions: AnchorPredictions) -> list[Tensor]:
        """(N, R_l, K) of each level, whose sigmoids are the scores."""
        maps = flatten_anchors(predictions.logits, self.num_logits)
        return [log_odds(x)[..., :-1] for x in maps] if self.head.has_background else maps

    def dense_outputs(self, features: list[Tensor], predictions: AnchorPredictions) -> DenseOutputs:
        """Scores and deltas of all anchors."""
        anchors = [x.tensor for x in self.anchor_generator(features)]

        def decode(level: int, deltas: Tensor, index: Tensor) -> Tensor:
            return self.box_coder.decode(deltas.float(), anchors[level][index])

        return DenseOutputs(
            self.class_logits(predictions), flatten_anchors(predictions.deltas, 4), decode
        )


class YOLOF(AnchorDetector):
    """You Only Look One-level Feature: one feature map, dilated encoder, uniform matching.

    (YOLOF, section 4.3.) Its parts make it; see :class:`AnchorDetector` for the arguments.
    """


def last_pairs(targets: AnchorTargets) -> Tensor:
    """(N * R,) int64: the number of each anchor's last pair, counted from 1; 0 without a pair."""
    order = torch.arange(1, len(targets.rows) + 1, device=targets.rows.device)
    none = torch.zeros_like(targets.labels)
    return none.scatter_reduce_(0, targets.rows, order, reduce="amax")


def flatten_anchors(maps: Sequence[Tensor], channels: int) -> list[Tensor]:
    """(N, A * channels, H, W) of each level -> (N, H * W * A, channels), anchors fastest."""
    return [
        x.unflatten(2, (x.shape[2] // channels, channels)).flatten(1, 2)
        for x in flatten_levels(maps)
    ]


def log_odds(logits: Tensor) -> Tensor:
    """Numbers whose sigmoids are the softmax of ``logits`` (..., K); float32."""
    log_probabilities = logits.float().log_softmax(-1)
    return log_probabilities - torch.log(-torch.expm1(log_probabilities))
