"""Detectors with several anchors for each location, on one level or several."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import ImageList, Instances
from torch import Tensor

from ..assigners import Assigner, Match
from ..boxes import ClampedDeltaCoder
from ..heads import AnchorPredictions
from ..losses import FocalLoss, GIoUBoxLoss, check_nonnegative, synced_mean
from .base import DenseOutputs, OneStageDetector, flatten_levels, log_tensor


class AnchorTargets(NamedTuple):
    """What a batch learns; rows count through the images, then through their R anchors.

    Attributes:
        labels: (N * R,) int64, class of a positive, K for background, -1 ignored.
        rows: (P,) int64 row of each pair's anchor; a row may stand in several pairs.
        anchors, gt_boxes: (P, 4) xyxy pixels, float32. counted: (P,) bool, pairs that are not
            ignored.
        num_foreground: scalar float32, different anchors with a class per worker (mean over
            workers), at least 1.
    """

    labels: Tensor
    rows: Tensor
    anchors: Tensor
    gt_boxes: Tensor
    counted: Tensor
    num_foreground: Tensor


class AnchorDetector(OneStageDetector):
    """Classes and boxes of anchors: YOLOF, RetinaNet and what lies between.

    The head's predictions are :class:`AnchorPredictions`. Anchors lie on the whole padded batch;
    those beyond an image are background like others, as in the reference.

    Args:
        anchor_generator: as many anchors at each location as the head has.
        box_coder: from deltas to boxes and back.
        cls_loss: has ``on_labels``; the focal loss by default.
        box_loss: see :mod:`vfnet_yolof.modeling.losses.box`; GIoU by default.
        box_weight: weight of the box loss.
        **kwargs: see :class:`OneStageDetector`.

    Raises:
        ValueError: head and anchor generator have different numbers of anchors, or the weight is
            negative.
    """

    def __init__(
        self,
        *,
        anchor_generator: DefaultAnchorGenerator,
        box_coder: ClampedDeltaCoder,
        cls_loss: FocalLoss | None = None,
        box_loss: Any = None,
        box_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_nonnegative(box_weight=box_weight)
        if set(anchor_generator.num_anchors) != {self.head.num_anchors}:
            raise ValueError(
                f"the head predicts {self.head.num_anchors} anchors for each location, but the "
                f"anchor generator has {anchor_generator.num_anchors} on its levels"
            )
        self.anchor_generator = anchor_generator
        self.box_coder = box_coder
        self.cls_loss = cls_loss if cls_loss is not None else FocalLoss()
        self.box_loss = box_loss if box_loss is not None else GIoUBoxLoss()
        self.box_weight = box_weight

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
        matches = self.match(anchors, predictions, gt_instances)
        labels = torch.cat(
            [
                match.labels(x.gt_classes, self.num_classes)
                for match, x in zip(matches, gt_instances, strict=True)
            ]
        )
        num_foreground = ((labels >= 0) & (labels < self.num_classes)).sum()
        log_tensor("num_pos", num_foreground / len(matches))
        return AnchorTargets(
            labels=labels,
            rows=torch.cat([m.anchor_idx + i * len(anchors) for i, m in enumerate(matches)]),
            anchors=anchors[torch.cat([m.anchor_idx for m in matches])],
            gt_boxes=torch.cat(
                [
                    x.gt_boxes.tensor.float()[m.gt_idx]
                    for m, x in zip(matches, gt_instances, strict=True)
                ]
            ),
            counted=~torch.cat([m.ignored_pairs for m in matches]),
            num_foreground=synced_mean(num_foreground),
        )

    @torch.no_grad()
    def match(
        self,
        anchors: Tensor,
        predictions: AnchorPredictions,
        gt_instances: Sequence[Instances],
        assigner: Assigner | None = None,
    ) -> list[Match]:
        """Which of the ``anchors`` (R, 4) of each image learns which of its boxes.

        ``assigner``: another rule than the detector's.
        """
        assigner = self.assigner if assigner is None else assigner
        level_sizes = [
            x.shape[-2] * x.shape[-1] * self.head.num_anchors for x in predictions.logits
        ]
        logits = torch.cat(flatten_anchors(predictions.logits, self.num_classes), dim=1)
        deltas = torch.cat(flatten_anchors(predictions.deltas, 4), dim=1)
        pred_boxes = self.box_coder.decode(deltas.float(), anchors)
        return [
            assigner(
                anchors,
                instances.gt_boxes.tensor,
                level_sizes=level_sizes,
                pred_boxes=pred_boxes[i],
                pred_logits=logits[i],
                gt_classes=instances.gt_classes,
            )
            for i, instances in enumerate(gt_instances)
        ]

    def losses(self, predictions: AnchorPredictions, targets: AnchorTargets) -> dict[str, Tensor]:
        """Weighted losses by name."""
        logits = torch.cat(flatten_anchors(predictions.logits, self.num_classes), dim=1)
        deltas = torch.cat(flatten_anchors(predictions.deltas, 4), dim=1)
        cls = self.cls_loss.on_labels(logits.flatten(0, 1).float(), targets.labels)
        chosen = deltas.flatten(0, 1).float()[targets.rows]
        box = self.box_loss(self.box_coder, chosen, targets.anchors, targets.gt_boxes)
        # A mask instead of an index, whose length the host would have to wait for.
        box = torch.where(targets.counted, box, 0.0).sum()
        return {
            "loss_cls": cls / targets.num_foreground,
            "loss_box": self.box_weight * box / targets.num_foreground,
        }

    def dense_outputs(self, features: list[Tensor], predictions: AnchorPredictions) -> DenseOutputs:
        """Scores and deltas of all anchors."""
        anchors = [x.tensor for x in self.anchor_generator(features)]

        def decode(level: int, deltas: Tensor, index: Tensor) -> Tensor:
            return self.box_coder.decode(deltas.float(), anchors[level][index])

        return DenseOutputs(
            flatten_anchors(predictions.logits, self.num_classes),
            flatten_anchors(predictions.deltas, 4),
            decode,
        )


class YOLOF(AnchorDetector):
    """You Only Look One-level Feature: one feature map, dilated encoder, uniform matching.

    (YOLOF, section 4.3.) Its parts make it; see :class:`AnchorDetector` for the arguments.
    """


def flatten_anchors(maps: Sequence[Tensor], channels: int) -> list[Tensor]:
    """(N, A * channels, H, W) of each level -> (N, H * W * A, channels), anchors fastest."""
    return [
        x.unflatten(2, (x.shape[2] // channels, channels)).flatten(1, 2)
        for x in flatten_levels(maps)
    ]
