"""COCO evaluation as it is usually done, and data to try it on: what :mod:`.coco_ap` is held to."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from vfnet_yolof.evaluation.coco_ap import Curves, DetectionArrays, detection_limits


def plain_curves(
    annotations: list[dict[str, Any]],
    detections: DetectionArrays,
    num_classes: int,
    num_images: int,
    max_dets: int = 100,
) -> Curves:
    """As :func:`.coco_ap.coco_curves`: pycocotools on all classes, a dictionary for each box."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    numbers = range(num_classes)
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(num_images)],
        "categories": [{"id": k} for k in numbers],
        "annotations": [{**a, "id": i} for i, a in enumerate(annotations, start=1)],
    }
    results = list(detections.as_dicts(slice(None), range(num_images), numbers))
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        if results:
            found = truth.loadRes(results)
        else:  # which loadRes refuses
            found = COCO()
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = detection_limits(max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
    return Curves(evaluation.eval["precision"][..., -1], evaluation.eval["recall"])


def synthetic_data(
    num_images: int,
    detections_per_image: int = 100,
    num_classes: int = 80,
    boxes_per_image: float = 7.3,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], DetectionArrays]:
    """Annotations and detections as of a detector that works: near boxes twice, and elsewhere.

    One box in fifty is a crowd; some images have no box (all of them have detections). The mean
    numbers of boxes and classes are those of COCO.
    """
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    parts = []
    for image in range(num_images):
        count = min(rng.poisson(boxes_per_image), detections_per_image // 2)
        boxes = _boxes(rng, count)
        classes = rng.integers(0, num_classes, count)
        for box, number in zip(boxes.tolist(), classes.tolist(), strict=True):
            annotations.append(
                {
                    "image_id": image,
                    "category_id": number,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(rng.random() < 0.02),
                }
            )
        rest = detections_per_image - 2 * count
        found = np.concatenate(
            [
                boxes + rng.normal(0, 3, boxes.shape),
                boxes + rng.normal(0, 12, boxes.shape),
                _boxes(rng, rest),
            ]
        )
        found[:, 2:] = np.abs(found[:, 2:]) + 1
        parts.append(
            DetectionArrays(
                np.full(len(found), image, np.int64),
                np.concatenate([classes, classes, rng.integers(0, num_classes, rest)]),
                found.astype(np.float32),
                # two digits, so that there are equal scores
                np.concatenate([rng.uniform(0.3, 1, count), rng.uniform(0, 0.6, count + rest)])
                .round(2)
                .astype(np.float32),
            )
        )
    return annotations, DetectionArrays.joined(parts)


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.concatenate([rng.uniform(0, 400, (count, 2)), rng.uniform(8, 200, (count, 2))], 1)
