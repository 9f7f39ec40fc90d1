"""What is measured of evaluation, data loading and imports."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import multiprocessing
import resource
import subprocess
import sys
from typing import Any

import numpy as np
from detectron2.config import instantiate

from ..configs import load_config
from ..evaluation.coco_ap import DetectionArrays, coco_curves, default_backend
from .measures import Report, Settings, model_and_batch, train_step
from .timing import Comparison, Run, Timing, compare

NUM_CLASSES = 80


def evaluation(settings: Settings, *, images: int = 5000, detections: int = 100) -> Report:
    """COCO's average precision by pycocotools, as Detectron2 calls it, and by ours."""
    truth, found = random_results(images, detections)
    records = list(found.as_dicts(slice(None), range(images), range(NUM_CLASSES)))
    variants: dict[str, Run] = {
        "pycocotools": lambda: plain_average_precision(truth, records, images),
        "ours": lambda: average_precision(truth, found),
    }
    notes: dict[str, Any] = {
        "backend": default_backend(),
        "AP": {name: run() for name, run in variants.items()},
        "peak MiB": {name: peak_of_process(name, images, detections) for name in variants},
    }
    comparison = compare(variants, repeats=settings.repeats, warmup=0, memory=False)
    return Report(f"evaluation of {images} x {detections} detections", comparison, notes)


def random_results(images: int, detections: int) -> tuple[list[dict[str, Any]], DetectionArrays]:
    """Seven boxes in each picture, and detections of which some are near to them."""
    random = np.random.default_rng(0)
    count = 7 * images
    sides = random.uniform(10, 300, (count, 2))
    boxes = np.concatenate([random.uniform(0, 300, (count, 2)), sides], axis=1)
    classes = random.integers(NUM_CLASSES, size=count)
    truth = [
        {
            "image_id": i // 7,
            "category_id": int(classes[i]),
            "bbox": boxes[i].tolist(),
            "area": float(sides[i].prod()),
            "iscrowd": 0,
        }
        for i in range(count)
    ]
    image = np.repeat(np.arange(images), detections)
    source = image * 7 + random.integers(7, size=len(image))
    noise = random.normal(scale=12, size=(len(image), 4))
    near = np.maximum(boxes[source] + noise, 1.0).astype(np.float32)
    right = random.random(len(image)) < 0.5
    labels = np.where(right, classes[source], random.integers(NUM_CLASSES, size=len(image)))
    scores = random.random(len(image)).astype(np.float32)
    return truth, DetectionArrays(image, labels, near, scores)


def average_precision(truth: list[dict[str, Any]], found: DetectionArrays) -> float:
    precision = coco_curves(truth, found, NUM_CLASSES).precision[..., 0]
    return float(precision[precision > -1].mean())


def plain_average_precision(
    truth: list[dict[str, Any]], records: list[dict[str, Any]], images: int
) -> float:
    """As Detectron2's ``COCOEvaluator`` has it without its compiled extension."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = {
            "images": [{"id": i} for i in range(images)],
            "categories": [{"id": k} for k in range(NUM_CLASSES)],
            "annotations": [{**x, "id": i} for i, x in enumerate(truth, start=1)],
        }
        ground_truth.createIndex()
        result = ground_truth.loadRes([dict(x) for x in records])
        coco_eval = COCOeval(ground_truth, result, "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
    precision = coco_eval.eval["precision"][:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def peak_of_process(name: str, images: int, detections: int) -> float:
    """MiB that an evaluation adds to a process of its own, detections included."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_evaluate_alone, (name, images, detections)))


def _evaluate_alone(name: str, images: int, detections: int) -> float:
    truth, found = random_results(images, detections)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if name == "ours":
        average_precision(truth, found)
    else:
        records = list(found.as_dicts(slice(None), range(images), range(NUM_CLASSES)))
        plain_average_precision(truth, records, images)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def data_loading(config: str, settings: Settings) -> Report:
    """A batch made by one process, and a training step on it: how many processes a step needs."""
    cfg = load_config(config)
    cfg.dataloader.train.num_workers = 0
    batches = iter(instantiate(cfg.dataloader.train))
    size = len(next(batches))
    model, inputs = model_and_batch(
        config, dataclasses.replace(settings, batch=size), settings.boxes
    )
    variants = {
        "one batch loaded": lambda: next(batches),
        "training step": train_step(model, inputs),
    }
    comparison = settings.compare(variants)
    notes = {
        "batch": size,
        "images/s": {name: size / x.median for name, x in comparison.timings.items()},
        "processes needed": comparison.ratio("one batch loaded", "training step"),
    }
    return Report(f"data loading {config}", comparison, notes)


IMPORT = """
import time
import detectron2.config, detectron2.data, detectron2.engine, detectron2.evaluation
import detectron2.modeling
began = time.perf_counter()
from vfnet_yolof.configs import load_config
load_config("vfnet/vfnet_r50_fpn_1x.py")
print(time.perf_counter() - began)
"""


def importing(settings: Settings) -> Report:
    """Seconds that the package and one config take after Detectron2 has been imported."""
    seconds = []
    for _ in range(settings.repeats + 1):
        command = [sys.executable, "-W", "ignore", "-c", IMPORT]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))
    timing = Timing(tuple(seconds[1:]), 0)  # the first one has filled the disk cache
    return Report("import and one config", Comparison({"import": timing}))
