"""RepPoints (RepPoints: Point set representation for object detection)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.structures import ImageList, Instances
from fvcore.nn import smooth_l1_loss
from torch import Tensor

from ..assigners import Assigner, Match
from ..boxes import aligned_iou, distances_to_boxes
from ..heads import PointPredictions
from ..losses import (
    ClassificationLoss,
    FocalLoss,
    check_no_background,
    check_nonnegative,
    loss_on_labels,
    synced_mean,
)
from ..points import Grid
from .base import PointDetector, feature_sizes, flatten_rows, log_tensor
from .outputs import PositiveRows


class StageTargets(NamedTuple):
    """What one stage's boxes learn, of N images with R locations each.

    Attributes:
        rows: (P,) int64 of the positives in (N * R). boxes: (P, 4) xyxy pixels.
        points: (P, 2) pixels. strides: (P, 1) float32.
        num_pos: scalar float32, the stage's divisor.
    """

    rows: Tensor
    boxes: Tensor
    points: Tensor
    strides: Tensor
    num_pos: Tensor


class RepPointsTargets(NamedTuple):
    """What a batch learns.

    Attributes:
        initial, refined: of the two stages.
        labels: (N * R,) int64, class of a positive, K for background, -1 ignored.
        valid: (N * R,) bool, see :class:`.Targets`; None where all are.
    """

    initial: StageTargets
    refined: StageTargets
    labels: Tensor
    valid: Tensor | None


class RepPoints(PointDetector):
    """Boxes by points in two stages, which learn by different rules (section 3.3).

    The initial boxes learn from geometry alone; the refined ones and the classes from the IoU of
    the *initial* predicted box with the ground truth.

    The head is a :class:`.RepPointsHead`.

    Args:
        init_assigner: of the initial boxes; ``assigner`` is of the refined ones and the classes
            and is given the initial predicted boxes as its anchors.
        cls_loss: classification loss; the focal loss by default. Its quality is the IoU of the
            refined box with the ground truth.
        beta: where the boxes' smooth L1 loss turns linear. Boxes are in units of
            ``base_scale`` strides there.
        box_init_weight, box_weight: weights of the two box losses.
        min_positives: see :class:`PointDetector`, for each stage. **kwargs: see there.

    Raises:
        ValueError: a number is negative, or ``base_scale`` is 0.
    """

    box_loss_name = "smooth L1 loss"

    def __init__(
        self,
        *,
        init_assigner: Assigner,
        cls_loss: ClassificationLoss | None = None,
        beta: float = 0.11,
        base_scale: float = 4.0,
        box_init_weight: float = 0.5,
        box_weight: float = 1.0,
        min_positives: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(min_positives=min_positives, **kwargs)
        check_nonnegative(
            beta=beta, base_scale=base_scale, box_init_weight=box_init_weight, box_weight=box_weight
        )
        if base_scale == 0:
            raise ValueError("base_scale must be positive, got 0")
        self.init_assigner = init_assigner
        self.cls_loss = cls_loss if cls_loss is not None else FocalLoss()
        check_no_background(self.cls_loss)
        self.beta = beta
        self.base_scale = base_scale
        self.box_init_weight = box_init_weight
        self.box_weight = box_weight

    @torch.no_grad()
    def targets(  # type: ignore[override]  # of two stages
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: PointPredictions,
        gt_instances: list[Instances],
    ) -> RepPointsTargets:
        """Match every image's boxes with locations, and with the initial predicted boxes."""
        sizes = feature_sizes(features)
        grid = self.points.grid(sizes, self.device)
        valid = self.valid_locations(images, sizes)
        initial = self.initial_boxes(predictions, grid, len(gt_instances))
        stages: list[list[Match]] = []
        for assigner, anchors in (
            (self.init_assigner, [grid.anchors] * len(gt_instances)),
            (self.assigner, list(initial)),
        ):
            stages.append(
                [
                    assigner(
                        of_image,
                        x.gt_boxes.tensor,
                        level_sizes=grid.level_sizes,
                        valid=None if valid is None else valid[i],
                        gt_classes=x.gt_classes,
                    )
                    for i, (of_image, x) in enumerate(zip(anchors, gt_instances, strict=True))
                ]
            )
        labels = torch.cat(
            [
                match.labels(x.gt_classes, self.num_classes)
                for match, x in zip(stages[1], gt_instances, strict=True)
            ]
        )
        first, second = (self._stage(matches, gt_instances, grid) for matches in stages)
        log_tensor("num_pos", second.num_pos / max(1, len(gt_instances)))
        return RepPointsTargets(first, second, labels, None if valid is None else valid.flatten())

    def positive_rows(self, targets: RepPointsTargets) -> PositiveRows:  # type: ignore[override]
        """See :class:`.OneStageDetector`; those of the refined boxes and the classes."""
        found = targets.refined
        return PositiveRows(
            found.rows,
            targets.labels[found.rows],
            found.boxes,
            found.points,
            found.strides[:, 0],
        )

    def initial_boxes(self, predictions: PointPredictions, grid: Grid, num_images: int) -> Tensor:
        """(N, R, 4) xyxy pixels, not clipped."""
        assert predictions.sides_init is not None, "the head has no initial points"
        raw = flatten_rows(predictions.sides_init)
        points = grid.points.repeat(num_images, 1)
        strides = grid.strides.repeat(num_images)[:, None]
        boxes = distances_to_boxes(points, self.decode_sides(raw, strides))
        return boxes.view(num_images, -1, 4)

    def _stage(
        self, matches: Sequence[Match], gt_instances: Sequence[Instances], grid: Grid
    ) -> StageTargets:
        number = len(grid.points)
        location = torch.cat([m.anchor_idx for m in matches])
        counts = [torch.ones_like(m.anchor_idx).sum() for m in matches]
        return StageTargets(
            rows=torch.cat([m.anchor_idx + i * number for i, m in enumerate(matches)]),
            boxes=torch.cat(
                [
                    x.gt_boxes.tensor.float()[m.gt_idx]
                    for m, x in zip(matches, gt_instances, strict=True)
                ]
            ),
            points=grid.points[location],
            strides=grid.strides[location][:, None],
            num_pos=synced_mean(torch.stack(counts).clamp(min=self.min_positives).sum()),
        )

    def losses(  # type: ignore[override]  # of two stages
        self, predictions: PointPredictions, targets: RepPointsTargets
    ) -> dict[str, Tensor]:
        """Weighted losses by name."""
        assert predictions.sides_init is not None, "the head has no initial points"
        logits = flatten_rows(predictions.logits)
        init_loss, _ = self._box_loss(predictions.sides_init, targets.initial)
        box_loss, boxes = self._box_loss(predictions.sides, targets.refined)
        quality = torch.zeros_like(logits[:, 0])
        quality[targets.refined.rows] = aligned_iou(boxes.detach(), targets.refined.boxes)
        cls = loss_on_labels(self.cls_loss, logits, targets.labels, quality, targets.valid)
        return {
            "loss_cls": cls / targets.refined.num_pos,
            "loss_box_init": self.box_init_weight * init_loss,
            "loss_box": self.box_weight * box_loss,
        }

    def _box_loss(self, sides: Sequence[Tensor], targets: StageTargets) -> tuple[Tensor, Tensor]:
        """The loss of one stage, and its predicted boxes (P, 4) at the positives."""
        raw = flatten_rows(sides)[targets.rows]
        boxes = distances_to_boxes(targets.points, self.decode_sides(raw, targets.strides))
        unit = self.base_scale * targets.strides
        loss = smooth_l1_loss(boxes / unit, targets.boxes / unit, self.beta, reduction="sum")
        return loss / targets.num_pos, boxes
