"""Measures of how good a positive location's box is (Generalized Focal Loss, table 1a)."""

from typing import NamedTuple

import torch
from torch import Tensor

from .box_coders import boxes_to_distances
from .losses import aligned_iou, centerness_target


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
    """Centerness of the location in the ground truth (FCOS)."""

    def __call__(self, positives: Positives) -> Tensor:
        """(P,) in [0, 1]."""
        return centerness_target(boxes_to_distances(positives.points, positives.boxes))


class IoUTarget:
    """IoU of the predicted box with the ground truth."""

    def __call__(self, positives: Positives) -> Tensor:
        """(P,) in [0, 1]."""
        return aligned_iou(positives.pred_boxes, positives.boxes)


class PredictedScore:
    """The best class score: what a joint representation itself says about the quality."""

    def __call__(self, positives: Positives) -> Tensor:
        """(P,) in [0, 1]."""
        return positives.logits.sigmoid().amax(1)


class EqualQuality:
    """1 for every positive."""

    def __call__(self, positives: Positives) -> Tensor:
        """(P,) ones."""
        return torch.ones_like(positives.logits[:, 0])
