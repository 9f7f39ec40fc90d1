"""A whole detector as one graph: from resized images to detections, at any size of batch and image.

Everything in it has a size that follows from the input's: candidates that do not pass get the score
0 instead of being left out, and so do the rows of an output with fewer detections than the most.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from ..layers.nms import HardNMS
from ..modeling.meta_arch.base import OneStageDetector
from ..modeling.meta_arch.gfocal import GFocal
from ..modeling.postprocess import FixedCandidates, PostProcessor
from ..optimization.folding import fold_batch_norms


class Suppression(NamedTuple):
    """What the graph's NMS does: as :class:`.HardNMS`, with the postprocessor's limit."""

    iou_threshold: float
    class_agnostic: bool
    max_detections: int


class DetectorGraph(nn.Module):
    """(N, 3, H, W) float32, 0 to 255, in the detector's channel order -> detections of each image.

    Args:
        model: a detector; it is copied, and its batch norms are folded.
        onnx: use the operator that becomes ONNX's NonMaxSuppression.
        nms: whether duplicates are removed. If not, what comes out are the candidates.

    Raises:
        ValueError: the detector is of a kind whose detections no such graph gives.
    """

    score_thresh: Tensor

    def __init__(self, model: nn.Module, *, onnx: bool, nms: bool = True) -> None:
        super().__init__()
        if not isinstance(model, OneStageDetector):
            raise ValueError(f"{type(model).__name__} is none of this project's detectors")
        if isinstance(model, GFocal):
            raise ValueError(
                f"{type(model).__name__} cannot be exported: its boxes end behind their last pixel "
                "of the image before it is resized, whose size the graph does not see"
            )
        post = model.postprocessor
        if type(post) is not PostProcessor:
            raise ValueError(
                f"{type(post).__name__} cannot be exported: the graph has the steps of "
                "PostProcessor, not those of a class of one's own"
            )
        self.suppression = None
        if nms:
            if not isinstance(post.nms, HardNMS):
                raise ValueError(
                    f"{type(post.nms).__name__} has no form inside of a graph: export with "
                    "--nms outside, or change it: model.postprocessor.nms"
                )
            self.suppression = Suppression(
                post.nms.iou_threshold, post.nms.class_agnostic, post.max_detections
            )
        self.onnx = onnx
        # A buffer, so that the check of a file can set it to 0: see `check.py`.
        self.register_buffer("score_thresh", torch.tensor(float(post.score_thresh)))
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        fold_batch_norms(self.model)
        self.divisor = max(1, self.model.backbone.size_divisibility)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detections of N images, D each.

        Returns:
            boxes (N, D, 4) xyxy in pixels of the input, scores (N, D) from the best to the worst
            and then 0, classes (N, D) int64, and how many there are, (N,) int64. Without NMS:
            boxes (N, L, 4) and scores (N, L, K), 0 where a candidate does not count.
        """
        model = self.model
        post: Any = FixedCandidates.like(model.postprocessor)
        post.score_thresh = self.score_thresh
        height, width = images.shape[-2:]
        unpadded = ImageList(images, [(height, width)])  # the images of a batch have one size
        x = (images - model.pixel_mean) / model.pixel_std
        # Without negative numbers, which ONNX divides otherwise than Python, and without a modulo,
        # behind which sizes become expressions that make exporting slow.
        below, right = (
            (side + self.divisor - 1) // self.divisor * self.divisor - side
            for side in (height, width)
        )
        x = F.pad(x, (0, right, 0, below))
        maps = model.backbone(x)
        features = [maps[name] for name in model.head_in_features]
        found = model.dense_outputs(features, model.head(features))

        def decode(level: int, index: Tensor) -> Tensor:
            raw = found.raw[level]
            rows = index[..., None].expand(-1, -1, raw.shape[-1])
            boxes = found.decode(level, raw.gather(1, rows), index)
            return model.in_image(boxes, unpadded, 0)

        chosen = post.candidate_boxes(found.logits, decode, (height, width), found.factors)
        scores = torch.where(chosen.passes, chosen.scores, 0.0)
        num_classes = model.num_classes
        if post.candidates == "pair":  # a row of its own for each score
            is_class = chosen.classes[..., None] == torch.arange(num_classes, device=x.device)
            scores = torch.where(is_class, scores[..., None], 0.0)
        else:
            scores = scores.unflatten(1, (-1, num_classes))
        if self.suppression is None:
            return chosen.boxes, scores
        suppress = suppress_onnx if self.onnx else suppressed
        scores = suppress(chosen.boxes, scores, *self.suppression)
        return self._best(chosen.clipped, scores, chosen.has_area)

    def _best(self, boxes: Tensor, scores: Tensor, has_area: Tensor) -> tuple[Tensor, ...]:
        """The D best of what is left: boxes (N, L, 4), scores (N, L, K)."""
        assert self.suppression is not None
        num_classes, limit = scores.shape[-1], self.suppression.max_detections
        # As many empty rows in front as may be asked for, since an image may have fewer.
        scores = F.pad(scores.flatten(1), (0, limit))
        scores, index = scores.topk(limit, dim=1)
        row = (index // num_classes).clamp(max=boxes.shape[1] - 1)
        boxes = boxes.gather(1, row[..., None].expand(-1, -1, 4))
        if self.model.postprocessor.clip == "after_nms":
            solid = has_area.gather(1, row)
            scores = torch.where(solid, scores, 0.0)
            scores, order = scores.topk(limit, dim=1)
            index = index.gather(1, order)
            boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        found = scores > 0
        boxes = torch.where(found[..., None], boxes, 0.0)
        classes = torch.where(found, index % num_classes, 0)
        return boxes, scores, classes, found.sum(1)


def one_class_each(scores: Tensor) -> Tensor:
    """Scores (N, L, K), of which only the best of each row is left."""
    best = scores.argmax(-1, keepdim=True)
    classes = torch.arange(scores.shape[-1], device=scores.device)
    return torch.where(classes == best, scores, 0.0)


def suppressed(
    boxes: Tensor, scores: Tensor, iou_threshold: float, class_agnostic: bool, max_detections: int
) -> Tensor:
    """Scores (N, L, K) of which those of duplicates are 0, by operators that torch exports.

    Like :class:`.HardNMS` in float64; every class of every image is moved to a place of its own.

    Args:
        boxes: (N, L, 4) xyxy pixels. scores: (N, L, K), 0 where there is none.
        iou_threshold, class_agnostic, max_detections: see :class:`Suppression`.
    """
    if class_agnostic:
        scores = one_class_each(scores)
    image, row, number = scores.nonzero(as_tuple=True)
    wide = boxes.double()
    step = (2 * wide.abs().amax() + 1).ceil()
    group = image if class_agnostic else image * scores.shape[-1] + number
    apart = wide[image, row] + (group * step)[:, None]
    # Two more, which are always kept, since torch.export takes numbers it does not know for 2 or
    # more. They go to a row of their own, which is cut off.
    none = row.new_zeros(2)
    image, number = torch.cat([image, none]), torch.cat([number, none])
    row = torch.cat([row, none + scores.shape[1]])
    apart = torch.cat([apart, -step * wide.new_tensor([[1.0] * 4, [2.0] * 4])])
    room = F.pad(scores, (0, 0, 0, 1))
    chosen = room[image, row, number]
    keep = nms(apart, chosen.double(), iou_threshold)
    kept = torch.zeros_like(room).index_put((image[keep], row[keep], number[keep]), chosen[keep])
    return kept[:, :-1]


@torch.library.custom_op("vfnet_yolof::suppress", mutates_args=())
def suppress_onnx(
    boxes: Tensor, scores: Tensor, iou_threshold: float, class_agnostic: bool, max_detections: int
) -> Tensor:
    """:func:`suppressed` as one operator, which :mod:`.onnx_file` writes in ONNX's terms."""
    return suppressed(boxes, scores, iou_threshold, class_agnostic, max_detections)


@suppress_onnx.register_fake
def _(
    boxes: Tensor, scores: Tensor, iou_threshold: float, class_agnostic: bool, max_detections: int
) -> Tensor:
    return torch.empty_like(scores)
