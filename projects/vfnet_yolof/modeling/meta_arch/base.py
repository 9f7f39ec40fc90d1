"""What detectors with one box for each location share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ..box_coders import distances_to_boxes
from ..heads.predictions import PointPredictions
from ..losses.normalizer import synced_mean
from ..points import PointGenerator
from ..postprocess import Detections, PostProcessor


class Targets(NamedTuple):
    """Positives of a batch; rows count through the images, then through the levels.

    Attributes:
        pos_idx: (P,) int64 row of each positive location, each at most once.
        classes: (P,) int64 in [0, K). boxes: (P, 4) xyxy pixels. points: (P, 2) pixels.
        num_pos: scalar float32, positives per worker (mean over workers), at least 1.
    """

    pos_idx: Tensor
    classes: Tensor
    boxes: Tensor
    points: Tensor
    num_pos: Tensor


class PointDetector(DenseDetector):
    """Assignment and inference on :class:`PointPredictions`; subclasses add the losses.

    Args:
        backbone: features for the head, from fine to coarse.
        head: gives :class:`PointPredictions`.
        points: locations and anchors.
        assigner: see :mod:`vfnet_yolof.modeling.assigners`.
        postprocessor: see :mod:`vfnet_yolof.modeling.postprocess`.
        num_classes: K.
        pixel_mean, pixel_std: per channel, in the order of ``input_format``.
        input_format: channel order of the images, ``"RGB"`` or ``"BGR"``.
        head_in_features: features for the head; all by default.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        points: PointGenerator,
        assigner: Any,
        postprocessor: PostProcessor,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "RGB",
        head_in_features: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            backbone,
            head,
            None if head_in_features is None else list(head_in_features),
            pixel_mean=list(pixel_mean),
            pixel_std=list(pixel_std),
        )
        self.points = points
        self.assigner = assigner
        self.postprocessor = postprocessor
        self.num_classes = num_classes
        self.input_format = input_format

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: PointPredictions,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Weighted losses, in float32 whatever precision the network ran in."""
        with torch.autocast(features[0].device.type, enabled=False):
            targets = self.assign(images, feature_sizes(features), gt_instances)
            return self.losses(predictions, targets)

    def losses(self, predictions: PointPredictions, targets: Targets) -> dict[str, Tensor]:
        """Weighted losses by name."""
        raise NotImplementedError(f"{type(self).__name__} defines no losses")

    @torch.no_grad()
    def assign(
        self,
        images: ImageList,
        sizes: Sequence[tuple[int, int]],
        gt_instances: Sequence[Instances],
    ) -> Targets:
        """Targets of a batch on feature maps of the given (H, W) ``sizes``."""
        points = self.points.points(sizes, self.device)
        assigned = self.assign_gt(images, points, sizes, gt_instances)
        image_idx, location = (assigned >= 0).nonzero(as_tuple=True)
        counts = [len(x) for x in gt_instances]
        first_box = torch.tensor([0, *counts[:-1]]).cumsum(0).to(self.device)
        gt_idx = assigned[image_idx, location] + first_box[image_idx]
        num_locations = assigned.shape[1]
        num_pos = synced_mean(torch.tensor(float(len(gt_idx)), device=self.device))
        _log("num_pos", float(len(gt_idx)) / max(1, len(counts)))
        return Targets(
            pos_idx=image_idx * num_locations + location,
            classes=torch.cat([x.gt_classes for x in gt_instances])[gt_idx],
            boxes=torch.cat([x.gt_boxes.tensor for x in gt_instances]).float()[gt_idx],
            points=torch.cat(points)[location],
            num_pos=num_pos,
        )

    @torch.no_grad()
    def assign_gt(
        self,
        images: ImageList,
        points: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        gt_instances: Sequence[Instances],
    ) -> Tensor:
        """(N, R) int64: index of the box that each location learns, -1 for background."""
        anchors = torch.cat(self.points.anchors(points))
        level_sizes = [len(x) for x in points]
        divisor = max(1, self.backbone.size_divisibility)
        assigned = []
        for instances, (height, width) in zip(gt_instances, images.image_sizes, strict=True):
            padded = (-(-height // divisor) * divisor, -(-width // divisor) * divisor)
            valid = None
            if padded != tuple(images.tensor.shape[-2:]):
                valid = self.points.valid_mask(sizes, padded, self.device)
            boxes = instances.gt_boxes.tensor
            assigned.append(self.assigner(anchors, boxes, level_sizes=level_sizes, valid=valid))
        return torch.stack(assigned)

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: PointPredictions
    ) -> list[Instances]:
        """Detections of each image, in the pixels of the network's input."""
        points = self.points.points(feature_sizes(features), self.device)
        logits = flatten_levels(predictions.logits)
        ltrb = flatten_levels(predictions.ltrb)
        quality = None
        if predictions.centerness is not None:
            quality = [x[..., 0].float().sigmoid() for x in flatten_levels(predictions.centerness)]
        results = []
        for i, image_size in enumerate(images.image_sizes):

            def decode(level: int, index: Tensor, image: int = i) -> Tensor:
                return distances_to_boxes(points[level][index], ltrb[level][image, index])

            detections = self.postprocessor(
                [x[i] for x in logits],
                decode,
                image_size,
                None if quality is None else [x[i] for x in quality],
            )
            results.append(self.finish(detections, predictions, points, i))
        return results

    def finish(
        self,
        detections: Detections,
        predictions: PointPredictions,
        points: Sequence[Tensor],
        image: int,
    ) -> Instances:
        """Hook for further fields on the detections of image number ``image``."""
        return detections.instances


def feature_sizes(features: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(H, W) of each level."""
    return [(int(x.shape[-2]), int(x.shape[-1])) for x in features]


def flatten_levels(maps: Sequence[Tensor]) -> list[Tensor]:
    """(N, C, H, W) of each level -> (N, H*W, C)."""
    return [x.flatten(2).transpose(1, 2) for x in maps]


def flatten_rows(maps: Sequence[Tensor]) -> Tensor:
    """(N, C, H, W) of each level -> (N * R, C) float32, the row order of :class:`Targets`."""
    return torch.cat(flatten_levels(maps), dim=1).flatten(0, 1).float()


def _log(name: str, value: float) -> None:
    try:
        storage = get_event_storage()
    except AssertionError:  # outside of a trainer there is nothing to log to
        return
    storage.put_scalar(name, value)
