"""What a trained detector predicts where its assigner says that it should, before any choice.

The assigner of the training runs on the test images' ground truth; studies and figures compare what
was predicted at these locations with what is true there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..modeling.boxes import aligned_iou, boxes_to_distances, centerness_target
from ..modeling.meta_arch.base import OneStageDetector
from ..modeling.meta_arch.outputs import ImageOutputs
from .subject import Subject


class Positives(NamedTuple):
    """The P positive locations or anchors of one image; all float32.

    Attributes:
        rows: (P,) int64, counted through the levels. classes: (P,) int64, of their ground truth.
        boxes, pred_boxes: (P, 4) xyxy pixels of the network's input, of ground truth and
            prediction, as they compete in the NMS.
        scores: (P,) of the class, in [0, 1]. quality: (P,) what the quality branch predicts; None
            without one.
        iou: (P,) of ``pred_boxes`` with ``boxes``.
        points: (P, 2) pixels, the locations. centerness: (P,) of these in their boxes.
            distances: (P, 4) from these to the sides of their boxes, in strides. None where the
            detector has anchors.
    """

    rows: Tensor
    classes: Tensor
    boxes: Tensor
    pred_boxes: Tensor
    scores: Tensor
    quality: Tensor | None
    iou: Tensor
    points: Tensor | None
    centerness: Tensor | None
    distances: Tensor | None


class Seen(NamedTuple):
    """One test image: the input dict, what the network says of it, and the positives of that."""

    inputs: dict[str, Any]
    outputs: ImageOutputs
    positives: Positives


def seen_images(subject: Subject) -> Iterator[Seen]:
    """Each of a subject's test images in turn."""
    for batch in subject.batches():
        yield see(subject.model, batch[0])


@torch.no_grad()
def see(model: OneStageDetector, inputs: dict[str, Any]) -> Seen:
    """Predict and assign on one image.

    Args:
        model: in evaluation mode.
        inputs: Detectron2's input dict with ``instances`` on the model's device.
    """
    images, features, predictions = model.raw_predictions([inputs])
    targets = model.targets(images, features, predictions, [inputs["instances"]])
    (outputs,) = model.image_outputs(images, features, predictions)
    found = model.positive_rows(targets)
    order = found.rows.argsort()  # by level, as predictions are looked up below
    rows, classes = found.rows[order], found.classes[order]
    logits = torch.cat([x.float() for x in outputs.logits])
    quality = None if outputs.factors is None else torch.cat(outputs.factors)[rows]
    pred_boxes = _decoded(outputs, rows)
    boxes = model.in_image(found.boxes[order], images, 0)
    points = distances = None
    if found.points is not None and found.strides is not None:
        points = found.points[order]
        ltrb = boxes_to_distances(points, found.boxes[order])
        distances = ltrb / found.strides[order, None]
    positives = Positives(
        rows,
        classes,
        boxes,
        pred_boxes,
        logits[rows, classes].sigmoid(),
        quality,
        aligned_iou(pred_boxes, boxes),
        points,
        None if distances is None else centerness_target(distances),
        distances,
    )
    return Seen(inputs, outputs, positives)


def by_level(outputs: ImageOutputs, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each level which of the ``rows`` (P,), counted through the levels, lie there.

    Returns:
        Positions (P_l,) in ``rows`` and rows (P_l,) within the level, both int64.
    """
    found, start = [], 0
    for logits in outputs.logits:
        here = ((rows >= start) & (rows < start + len(logits))).nonzero()[:, 0]
        found.append((here, rows[here] - start))
        start += len(logits)
    return found


def _decoded(outputs: ImageOutputs, rows: Tensor) -> Tensor:
    """(P, 4) the predicted boxes of ascending rows (P,)."""
    parts = by_level(outputs, rows)
    boxes = [outputs.decode(level, index) for level, (_, index) in enumerate(parts)]
    return torch.cat(boxes).float()
