"""FoveaBox (FoveaBox: Beyond anchor-based object detection)."""

from typing import Any

import torch
from detectron2.structures import ImageList
from fvcore.nn import smooth_l1_loss
from torch import Tensor

from ..boxes import aligned_iou, boxes_to_distances, clip_boxes
from ..losses import (
    ClassificationLoss,
    FocalLoss,
    check_no_background,
    check_nonnegative,
    synced_mean,
)
from ..representations import DiracDelta
from .base import PointDetector
from .outputs import Predicted, Targets

LARGEST_RATIO = 16.0  # of a target to the unit of its level, and of the unit to a target


class FoveaBox(PointDetector):
    """Classes in the middle of boxes, and distances to their sides in logarithms.

    The head is a :class:`.GFLHead` without factors for the levels and with a :class:`DiracDelta`
    whose unit is what a level's distances are measured in; locations lie in the middle of cells
    (``points.offset`` 0.5) and the assigner is a :class:`.FoveaAssigner`. As in the reference,
    boxes end at the last pixel inside of the image, and locations in the padding are background.

    Args:
        cls_loss: classification loss; the focal loss by default, with alpha 0.4 and gamma 1.5.
            Its quality is the IoU of the predicted box, within its image, with the ground truth.
            It is divided by the number of positives and images.
        beta: where the smooth L1 loss of the logarithms turns linear.
        box_weight: weight of that loss, which is divided by the positives.
        **kwargs: see :class:`PointDetector`.

    Raises:
        ValueError: the head's representation is no :class:`DiracDelta`, or a number is negative.
    """

    box_geometry = "fovea"
    box_loss_name = "smooth L1 loss"

    def __init__(
        self,
        *,
        cls_loss: ClassificationLoss | None = None,
        beta: float = 0.11,
        box_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_nonnegative(beta=beta, box_weight=box_weight)
        if not isinstance(self.representation, DiracDelta):
            raise ValueError(
                f"FoveaBox needs a head with a DiracDelta, got {type(self.representation).__name__}"
            )
        self.cls_loss = cls_loss if cls_loss is not None else FocalLoss(alpha=0.4, gamma=1.5)
        check_no_background(self.cls_loss)
        self.beta = beta
        self.box_weight = box_weight

    def valid_locations(self, images: ImageList, sizes: Any) -> None:
        """None: those in the padding are locations as others."""
        return None

    def losses_of(self, predicted: Predicted, targets: Targets) -> dict[str, Tensor]:
        """Weighted losses by name."""
        unit = targets.strides[:, None] * self.representation.unit
        ratio = boxes_to_distances(targets.points, targets.boxes) / unit
        logs = ratio.clamp(1 / LARGEST_RATIO, LARGEST_RATIO).log()
        box = smooth_l1_loss(predicted.raw, logs, self.beta, reduction="sum")
        count = torch.ones_like(targets.pos_idx).sum()
        cls = self.cls_loss(
            predicted.logits, targets.pos_idx, targets.classes, self.quality(predicted, targets)
        )
        return {
            "loss_cls": cls / synced_mean(count + len(targets.image_sizes)),
            "loss_box": self.box_weight * box / synced_mean(count),
        }

    @torch.no_grad()
    def quality(self, predicted: Predicted, targets: Targets) -> Tensor:
        """(P,) IoU of the positives' predicted boxes, within their images."""
        sizes = torch.tensor(targets.image_sizes, device=targets.images.device)[targets.images]
        limit = (sizes.flip(-1) - 1).repeat(1, 2)
        boxes = torch.minimum(predicted.boxes.clamp(min=0), limit)
        return aligned_iou(boxes, targets.boxes)

    def in_image(self, boxes: Tensor, images: ImageList, image: int) -> Tensor:
        """Boxes (P, 4) xyxy that end at the last pixel inside of the image."""
        height, width = images.image_sizes[image]
        return clip_boxes(boxes, (height - 1, width - 1))
