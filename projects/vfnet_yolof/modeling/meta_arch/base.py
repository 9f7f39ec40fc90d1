"""Base classes: one-stage detectors, and detectors with one box for each location."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ..assigners import Assigner, Match
from ..boxes import distances_to_boxes
from ..heads import PointPredictions
from ..losses import synced_mean
from ..points import Grid, PointGenerator
from ..postprocess import Detections, PostProcessor
from .outputs import (
    DenseOutputs,
    ExtraFields,
    ImageOutputs,
    PositiveRows,
    Predicted,
    Targets,
)


class OneStageDetector(DenseDetector):
    """Backbone, head, assigner and post-processing; subclasses add targets, losses and decoding.

    Args:
        backbone: gives feature maps by name.
        head: gives the predictions.
        assigner: which anchor learns which box, see :mod:`vfnet_yolof.modeling.assigners`.
        postprocessor: see :mod:`vfnet_yolof.modeling.postprocess`.
        num_classes: K.
        pixel_mean, pixel_std: per channel, in the order of ``input_format``.
        input_format: channel order of the images, ``"RGB"`` or ``"BGR"``.
        head_in_features: names of the feature maps that go to the head, from fine to coarse; all by
            default.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        assigner: Assigner,
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
        self.assigner = assigner
        self.postprocessor = postprocessor
        self.num_classes = num_classes
        self.input_format = input_format

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses by name in training, else what :meth:`detect` gives; see Detectron2's models."""
        return super().forward(batched_inputs) if self.training else self.detect(batched_inputs)

    @property
    def extra_fields(self) -> Mapping[str, ExtraFields]:
        """What :meth:`detect` can add to the detections, by the name that asks for it."""
        return {}

    def detect(
        self, batched_inputs: Sequence[dict[str, Any]], fields: Sequence[str] = ()
    ) -> list[dict[str, Instances]]:
        """Detections of each image: ``pred_boxes``, ``scores``, ``pred_classes``, best first.

        Args:
            batched_inputs: Detectron2's input dicts. Coordinates and lengths are scaled to each
                dict's ``height`` and ``width``; by default to the image's size.
            fields: what to add, of the names in :attr:`extra_fields`.

        Returns:
            ``[{"instances": Instances}]``, in the images' order.

        Raises:
            RuntimeError: the model is in training mode.
            TypeError: the model has no such field.
        """
        if self.training:
            raise RuntimeError(f"{type(self).__name__} is in training mode; call eval() to detect")
        extra = self.extra_fields
        for name in fields:
            if name not in extra:
                known = f"it has {', '.join(extra)}" if extra else "it has none"
                raise TypeError(f"{type(self).__name__} has no field {name!r} to add; {known}")
        images, features, predictions = self.raw_predictions(batched_inputs)
        found = self.detections(images, features, predictions)
        outputs = []
        for i, (detections, inputs) in enumerate(zip(found, batched_inputs, strict=True)):
            size = images.image_sizes[i]
            height, width = inputs.get("height", size[0]), inputs.get("width", size[1])
            scale = (width / size[1], height / size[0])
            for name in fields:
                for key, value in extra[name](detections, predictions, i, scale).items():
                    detections.instances.set(key, value)
            instances = detector_postprocess(detections.instances, height, width)
            outputs.append({"instances": instances})
        return outputs

    def raw_predictions(
        self, batched_inputs: Sequence[dict[str, Any]]
    ) -> tuple[ImageList, list[Tensor], Any]:
        """The images as the network sees them, the head's feature maps, and its predictions."""
        images = self.preprocess_image(batched_inputs)
        maps = self.backbone(images.tensor)
        features = [maps[name] for name in self.head_in_features]
        return images, features, self.head(features)

    def detections(
        self, images: ImageList, features: list[Tensor], predictions: Any
    ) -> list[Detections]:
        """Detections of each image, in the pixels of the network's input."""
        return [self.postprocessor(*x) for x in self.image_outputs(images, features, predictions)]

    def image_outputs(
        self, images: ImageList, features: list[Tensor], predictions: Any
    ) -> Iterator[ImageOutputs]:
        """What :meth:`detections` chooses from, of each image."""
        found = self.dense_outputs(features, predictions)
        for i, image_size in enumerate(images.image_sizes):

            def decode(level: int, index: Tensor, image: int = i) -> Tensor:
                boxes = found.decode(level, found.raw[level][image, index], index)
                return self.in_image(boxes, images, image)

            factors = None if found.factors is None else [x[i] for x in found.factors]
            yield ImageOutputs([x[i] for x in found.logits], decode, image_size, factors)

    def dense_outputs(self, features: list[Tensor], predictions: Any) -> DenseOutputs:
        """What the network says of all anchors or locations of the batch."""
        raise NotImplementedError(f"{type(self).__name__} defines no dense_outputs")

    def in_image(self, boxes: Tensor, images: ImageList, image: int) -> Tensor:
        """Decoded boxes (P, 4) of image number ``image``, as they compete in the NMS."""
        return boxes

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: Any,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Weighted losses, in float32 whatever precision the network ran in."""
        with torch.autocast(features[0].device.type, enabled=False):
            return self.losses(
                predictions, self.targets(images, features, predictions, gt_instances)
            )

    def own_padded_sizes(self, images: ImageList) -> list[tuple[int, int]] | None:
        """(H, W) that each image would be padded to without the others; None if all are as large.

        The rest of a batch's tensor belongs to no image.
        """
        divisor = max(1, self.backbone.size_divisibility)
        padded = [(_ceil(h, divisor), _ceil(w, divisor)) for h, w in images.image_sizes]
        return None if all(x == tuple(images.tensor.shape[-2:]) for x in padded) else padded

    def targets(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: Any,
        gt_instances: list[Instances],
    ) -> Any:
        """What :meth:`losses` compares the predictions with."""
        raise NotImplementedError(f"{type(self).__name__} defines no targets")

    def positive_rows(self, targets: Any) -> PositiveRows:
        """Which rows of the predictions learn which box, by what :meth:`targets` gives."""
        raise NotImplementedError(f"{type(self).__name__} defines no positive_rows")

    def losses(self, predictions: Any, targets: Any) -> dict[str, Tensor]:
        """Weighted losses by name."""
        raise NotImplementedError(f"{type(self).__name__} defines no losses")


class PointDetector(OneStageDetector):
    """Assignment and inference; subclasses add the losses.

    The head returns :class:`.PointPredictions`. Its ``representation`` decodes the sides; if that
    is None, the sides are distances in pixels already.

    Args:
        points: locations and anchors.
        min_positives: ``num_pos`` is the sum over images of max(positives, ``min_positives``), and
            at least 1 for a batch. ATSS and GFL have ``min_positives`` 1, VFNet 0.
        **kwargs: see :class:`OneStageDetector`.

    Attributes:
        box_loss_name: of the class: what the loss of its boxes is called, for its diagram.
    """

    box_loss_name = ""

    def __init__(self, *, points: PointGenerator, min_positives: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.points = points
        self.min_positives = min_positives

    @property
    def representation(self) -> Any:
        """How the head predicts the sides; it is the head's, also where it has weights."""
        return self.head.representation

    def targets(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: Any,
        gt_instances: list[Instances],
    ) -> Targets:
        """Positives by geometry alone, see :meth:`assign`."""
        return self.assign(images, feature_sizes(features), gt_instances)

    @torch.no_grad()
    def assign(
        self,
        images: ImageList,
        sizes: Sequence[tuple[int, int]],
        gt_instances: Sequence[Instances],
    ) -> Targets:
        """Targets of a batch on feature maps of the given (H, W) ``sizes``."""
        grid = self.points.grid(sizes, self.device)
        valid = self.valid_locations(images, sizes)
        matches = self.match(grid, gt_instances, valid)
        assigned = torch.stack([match.box_of_each() for match in matches])
        image_idx, location = (assigned >= 0).nonzero(as_tuple=True)
        # Python's numbers reach a device without waiting for it, new tensors do not.
        first_boxes = itertools.accumulate([len(x) for x in gt_instances[:-1]], initial=0)
        rows = torch.stack([x + n for x, n in zip(assigned, first_boxes, strict=True)])
        gt_idx = rows[image_idx, location]
        num_locations = assigned.shape[1]
        num_pos = (assigned >= 0).sum(1).clamp(min=self.min_positives).sum()
        log_scalar("num_pos", len(gt_idx) / max(1, len(gt_instances)))
        return Targets(
            pos_idx=image_idx * num_locations + location,
            classes=torch.cat([x.gt_classes for x in gt_instances])[gt_idx],
            boxes=torch.cat([x.gt_boxes.tensor for x in gt_instances]).float()[gt_idx],
            points=grid.points[location],
            strides=grid.strides[location],
            num_pos=synced_mean(num_pos),
            valid=None if valid is None else valid.flatten(),
            images=image_idx,
            image_sizes=list(images.image_sizes),
        )

    def positive_rows(self, targets: Targets) -> PositiveRows:
        """See :class:`OneStageDetector`."""
        return PositiveRows(
            targets.pos_idx, targets.classes, targets.boxes, targets.points, targets.strides
        )

    @torch.no_grad()
    def match(
        self, grid: Grid, gt_instances: Sequence[Instances], valid: Tensor | None
    ) -> list[Match]:
        """Which location of each image learns which of its boxes.

        ``valid``: see :meth:`valid_locations`.
        """
        return [
            self.assigner(
                grid.anchors,
                instances.gt_boxes.tensor,
                level_sizes=grid.level_sizes,
                valid=None if valid is None else valid[i],
                gt_classes=instances.gt_classes,
            )
            for i, instances in enumerate(gt_instances)
        ]

    @torch.no_grad()
    def valid_locations(self, images: ImageList, sizes: Sequence[tuple[int, int]]) -> Tensor | None:
        """(N, R) bool: which locations lie in an image's own padded size; None if all do."""
        padded = self.own_padded_sizes(images)
        if padded is None:
            return None
        return torch.stack([self.points.valid_mask(sizes, size, self.device) for size in padded])

    def losses(self, predictions: PointPredictions, targets: Targets) -> dict[str, Tensor]:
        """Weighted losses by name."""
        initial, quality = (
            None if maps is None else flatten_rows(maps)
            for maps in (predictions.ltrb_init, predictions.quality_logits)
        )
        raw = flatten_rows(predictions.sides)[targets.pos_idx]
        ltrb = self.decode_sides(raw, targets.strides[:, None])
        predicted = Predicted(
            logits=flatten_rows(predictions.logits),
            raw=raw,
            boxes=distances_to_boxes(targets.points, ltrb),
            initial_boxes=None
            if initial is None
            else distances_to_boxes(targets.points, initial[targets.pos_idx]),
            quality_logits=None if quality is None else quality[targets.pos_idx, 0],
        )
        return self.losses_of(predicted, targets)

    def losses_of(self, predicted: Predicted, targets: Targets) -> dict[str, Tensor]:
        """Weighted losses by name."""
        raise NotImplementedError(f"{type(self).__name__} defines no losses_of")

    def dense_outputs(self, features: list[Tensor], predictions: PointPredictions) -> DenseOutputs:
        """Scores and sides of all locations."""
        points = self.points.points(feature_sizes(features), self.device)

        def decode(level: int, raw: Tensor, index: Tensor) -> Tensor:
            ltrb = self.decode_sides(raw, self.points.strides[level])
            return distances_to_boxes(points[level][index], ltrb)

        factors = None
        if predictions.quality_logits is not None:
            maps = flatten_levels(predictions.quality_logits)
            factors = [x[..., 0].float().sigmoid() for x in maps]
        return DenseOutputs(
            flatten_levels(predictions.logits), flatten_levels(predictions.sides), decode, factors
        )

    def decode_sides(self, raw: Tensor, stride: Tensor | float) -> Tensor:
        """Distances (P, 4) in pixels from the head's box numbers (P, C), at ``stride`` pixels."""
        if self.representation is None:
            return raw
        return self.representation.decode(raw.float()) * stride

    def detected_at(
        self, detections: Detections, maps: Sequence[Tensor], image: int
    ) -> tuple[Tensor, Tensor]:
        """Where the detections of image number ``image`` are, and what was predicted there.

        Args:
            maps: (N, C, H, W) of each level.

        Returns:
            Locations (D, 2) in pixels of the network's input, and their (D, C) of ``maps``.
        """
        points = self.points.points(feature_sizes(maps), self.device)
        first = torch.tensor([0, *(len(x) for x in points[:-1])]).cumsum(0)
        rows = first.to(detections.level.device)[detections.level] + detections.location
        return torch.cat(list(points))[rows], torch.cat([x[image] for x in flatten_levels(maps)])[
            rows
        ]


def _ceil(length: int, divisor: int) -> int:
    return -(-length // divisor) * divisor


def feature_sizes(features: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(H, W) of each level."""
    return [(x.shape[-2], x.shape[-1]) for x in features]  # symbols while exporting


def flatten_levels(maps: Sequence[Tensor]) -> list[Tensor]:
    """(N, C, H, W) of each level -> (N, H*W, C)."""
    return [x.flatten(2).transpose(1, 2) for x in maps]


def flatten_rows(maps: Sequence[Tensor]) -> Tensor:
    """(N, C, H, W) of each level -> (N * R, C) float32, the row order of :class:`Targets`."""
    return torch.cat(flatten_levels(maps), dim=1).flatten(0, 1).float()


def log_scalar(name: str, value: float) -> None:
    """Log ``value`` if a trainer is listening; outside of one there is nothing to log to."""
    try:
        storage = get_event_storage()
    except AssertionError:
        return
    storage.put_scalar(name, value)


def log_tensor(name: str, value: Tensor, period: int = 20) -> None:
    """:func:`log_scalar` for a number on the device, in every ``period``-th iteration only.

    Reading it makes the host wait for the device, which a step should not do.
    """
    try:
        iteration = get_event_storage().iter
    except AssertionError:
        return
    if iteration % period == 0:
        log_scalar(name, float(value))
