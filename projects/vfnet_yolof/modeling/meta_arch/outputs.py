"""What detectors predict and what they are to learn, as losses and post-processing take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ..postprocess import Detections


class Targets(NamedTuple):
    """Positives of a batch of N images with R locations each (all levels, finest first).

    Row ``n * R + r`` is location r of image n.

    Attributes:
        pos_idx: (P,) int64 row of each positive location, each at most once.
        classes: (P,) int64 in [0, K). boxes: (P, 4) xyxy pixels. points: (P, 2) pixels.
        strides: (P,) float32, stride of each positive's level.
        num_pos: scalar float32, positives per worker (mean over workers), at least 1.
        valid: (N * R,) bool, False where a location lies beyond its image's own padded size; None
            where all of them are valid. The classification loss decides what happens to the others.
        images: (P,) int64 number of each positive's image in the batch.
        image_sizes: (H, W) pixels of each image.
    """

    pos_idx: Tensor
    classes: Tensor
    boxes: Tensor
    points: Tensor
    strides: Tensor
    num_pos: Tensor
    valid: Tensor | None
    images: Tensor
    image_sizes: list[tuple[int, int]]


class PositiveRows(NamedTuple):
    """Which locations or anchors of a batch learn which box, each of them once.

    Attributes:
        rows: (P,) int64, counted through the images, then through their R locations or anchors.
        classes: (P,) int64 in [0, K). boxes: (P, 4) xyxy pixels, as the head is to learn them.
        points: (P, 2) pixels, the locations. strides: (P,) float32, of their levels. None where
            the detector has anchors.
    """

    rows: Tensor
    classes: Tensor
    boxes: Tensor
    points: Tensor | None = None
    strides: Tensor | None = None


class Predicted(NamedTuple):
    """What was predicted, as the losses compare it with :class:`Targets`; float32.

    Attributes:
        logits: (N * R, K) class scores of all locations before the sigmoid.
        raw: (P, C) box outputs of the head at the positives, not decoded.
        boxes: (P, 4) xyxy pixels, decoded. initial_boxes: the same before the refinement; None
            without one.
        quality_logits: (P,) of the quality branch; None without one.
    """

    logits: Tensor
    raw: Tensor
    boxes: Tensor
    initial_boxes: Tensor | None
    quality_logits: Tensor | None


class DenseOutputs(NamedTuple):
    """What the network says of all anchors or locations of N images, for each level.

    Attributes:
        logits: (N, R_l, K). raw: (N, R_l, C), the box numbers.
        decode: ``decode(level, raw, index)`` gives boxes (..., 4) xyxy in pixels from ``raw``
            (..., C) at the rows ``index`` (...) of that level.
        factors: (N, R_l) in [0, 1] on the scores; None without any.
    """

    logits: list[Tensor]
    raw: list[Tensor]
    decode: Callable[[int, Tensor, Tensor], Tensor]
    factors: list[Tensor] | None = None


class ImageOutputs(NamedTuple):
    """What the network says of one image, of which the detections are chosen.

    In the order of the arguments of :class:`.PostProcessor`.

    Attributes:
        logits: (R_l, K) of each level, before the sigmoid.
        decode: ``decode(level, index)`` gives the boxes (P, 4) xyxy in pixels, as they compete in
            the NMS, of the locations ``index`` (P,) of that level.
        image_size: (H, W) of the image without padding, pixels.
        factors: (R_l,) of each level, in [0, 1], on the scores; None without any.
    """

    logits: list[Tensor]
    decode: Callable[[int, Tensor], Tensor]
    image_size: tuple[int, int]
    factors: list[Tensor] | None = None


# From an image's detections, the batch's predictions, the image's number in the batch and the
# scales (x, y) from the network's input to the output, further fields (D, ...) by name.
ExtraFields = Callable[[Detections, Any, int, tuple[float, float]], dict[str, Any]]
