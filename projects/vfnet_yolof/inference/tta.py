"""Multi-scale testing: one detector at several image sizes, with and without a flip."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..data.augmentations import fitted_size
from ..data.transforms import AugInput, check_interpolation
from ..layers.nms import NMS
from ..modeling.by_size import detect_by_size
from ..modeling.postprocess import PostProcessor


class DenseTTA(nn.Module):
    """Run a detector on several versions of each image and suppress duplicates among all boxes.

    Every version gives all its candidates, before NMS. Their boxes are brought back to the pixels
    of the result, and one NMS chooses among them, so a detection keeps the score of its best
    version. With one size and no flip the result is that of the detector itself.

    Give it images at their own size, i.e. a test mapper without augmentations: every version is
    resized from what comes.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sizes: Sequence[Sequence[int]],
        flip: bool = True,
        interpolation: str = "pil",
        nms: NMS | None = None,
        box_ranges: Sequence[Sequence[float] | None] | None = None,
    ) -> None:
        """model: a detector with a ``postprocessor``, as all of this project are.

        sizes: (long edge, short edge) px of the versions; an image keeps its shape and fits into
            them.
        flip: add a version that is flipped left to right, of each size.
        interpolation: "pil" or "opencv", see :class:`AugInput`.
        nms: chooses among the boxes of all versions; the detector's own by default. Soft-NMS keeps,
            with lower scores, the many boxes that agree on an object: tune its threshold for this.
        box_ranges: for each size [least, greatest] side px (the root of the area, in pixels of the
            result) of the boxes that it may give, or None for any.

        Raises:
            TypeError: the model has no ``postprocessor``.
            ValueError: sizes or ranges that are none.
        """
        super().__init__()
        _postprocessor(model)
        self.sizes = [_checked_pair("sizes", size, least=1) for size in sizes]
        if not self.sizes:
            raise ValueError("sizes is empty: give pairs (long edge, short edge)")
        ranges = [None] * len(self.sizes) if box_ranges is None else list(box_ranges)
        if len(ranges) != len(self.sizes):
            raise ValueError(f"{len(ranges)} box_ranges for {len(self.sizes)} sizes")
        for one in ranges:
            if one is not None:
                low, high = _checked_pair("box_ranges", one, least=0)
                if low >= high:
                    raise ValueError(f"box_ranges must be [least, greatest] or None, got {one}")
        self.model = model
        self.flip = flip
        self.interpolation = check_interpolation(interpolation)
        self.nms = nms
        self.box_ranges = ranges

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """As the detector's in inference; ``image`` (3, H, W) must be uint8.

        Raises:
            RuntimeError: the model is in training mode.
        """
        if self.model.training:
            raise RuntimeError("multi-scale testing needs the model in evaluation mode")
        return [{"instances": self._detect(inputs)} for inputs in batched_inputs]

    def _detect(self, inputs: dict[str, Any]) -> Instances:
        image = inputs["image"].permute(1, 2, 0).cpu().numpy()
        size = (inputs.get("height", image.shape[0]), inputs.get("width", image.shape[1]))
        views, origins = [], []
        for edges, limits in zip(self.sizes, self.box_ranges, strict=True):
            for view, flipped in zip(self._views(image, edges), (False, True), strict=False):
                views.append({"image": view, "height": size[0], "width": size[1]})
                origins.append((flipped, limits))
        outputs = detect_by_size(self._without_nms(), views)
        parts = [
            _candidates(output["instances"], *origin)
            for output, origin in zip(outputs, origins, strict=True)
        ]
        boxes, scores, classes = (torch.cat(x) for x in zip(*parts, strict=True))
        postprocessor = _postprocessor(self.model)
        nms = postprocessor.nms if self.nms is None else self.nms
        keep, kept_scores = nms(boxes, scores, classes, postprocessor.max_detections)
        return Instances(
            size, pred_boxes=Boxes(boxes[keep]), scores=kept_scores, pred_classes=classes[keep]
        )

    def _views(self, image: np.ndarray, edges: tuple[int, int]) -> list[Tensor]:
        """(3, h, w) uint8 of one size: as it is and, if asked for, flipped."""
        height, width = image.shape[:2]
        resized = AugInput(image, interpolation=self.interpolation)
        resized.transform(T.ResizeTransform(height, width, *fitted_size(height, width, *edges)))
        view = torch.as_tensor(np.ascontiguousarray(resized.image.transpose(2, 0, 1)))
        return [view, view.flip(2)] if self.flip else [view]

    def _without_nms(self) -> nn.Module:
        """The same model, weights and all, with a post-processor that keeps all candidates."""
        postprocessor = copy.copy(_postprocessor(self.model))
        postprocessor.nms = _keep_all
        model: Any = copy.copy(self.model)
        model.postprocessor = postprocessor
        return model


def _postprocessor(model: nn.Module) -> PostProcessor:
    """What chooses the model's detections; TypeError where nothing does."""
    found = getattr(model, "postprocessor", None)
    if found is None:
        raise TypeError(
            f"{type(model).__name__} has no postprocessor, whose candidates multi-scale testing "
            "merges."
        )
    return found


def _keep_all(
    boxes: Tensor, scores: Tensor, classes: Tensor, max_detections: int
) -> tuple[Tensor, Tensor]:
    order = scores.argsort(descending=True, stable=True)
    return order, scores[order]


def _candidates(
    instances: Instances, flipped: bool, limits: Sequence[float] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (P, 4), scores and classes of one version, flipped back and within its range."""
    boxes = instances.pred_boxes.tensor
    if flipped:
        width = instances.image_size[1]
        left, top, right, bottom = boxes.unbind(-1)
        boxes = torch.stack([width - right, top, width - left, bottom], dim=-1)
    keep = slice(None)
    if limits is not None:
        side = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1).sqrt()
        keep = (side >= limits[0]) & (side < limits[1])
    return boxes[keep], instances.scores[keep], instances.pred_classes[keep]


def _checked_pair(name: str, pair: Sequence[float], least: float) -> tuple[Any, Any]:
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(f"{name} must hold pairs of numbers of at least {least}, got {list(pair)}")
    return pair[0], pair[1]
