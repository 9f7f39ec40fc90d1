"""What is measured of evaluation, data loading and imports."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from detectron2.config import instantiate
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.evaluation.coco_ap import Curves, coco_curves, default_backend

from .measures import Report, Settings, model_and_batch, train_step
from .memory import in_own_process, peak_resident_mib
from .plain_coco import plain_curves, synthetic_data
from .timing import Comparison, Run, Timing, compare

NUM_CLASSES = 80


def evaluation(settings: Settings, *, images: int = 5000, detections: int = 100) -> Report:
    """COCO's average precision by pycocotools, as Detectron2 calls it, and by ours."""
    variants: dict[str, Run] = evaluations(images, detections)
    notes: dict[str, Any] = {
        "backend": default_backend(),
        "AP": {name: run() for name, run in variants.items()},
        "peak MiB": {name: peak_of_process(name, images, detections) for name in variants},
    }
    comparison = compare(variants, repeats=settings.repeats, warmup=0, memory=False)
    return Report(f"evaluation of {images} x {detections} detections", comparison, notes)


def evaluations(images: int, detections: int) -> dict[str, Callable[[], float]]:
    """The average precision of the same detections, computed in both ways."""
    truth, found = synthetic_data(images, detections, NUM_CLASSES)

    def average(curves: Curves) -> float:
        precision = curves.precision[..., 0]
        return float(precision[precision > -1].mean())

    return {
        "pycocotools": lambda: average(plain_curves(truth, found, NUM_CLASSES, images)),
        "ours": lambda: average(coco_curves(truth, found, NUM_CLASSES)),
    }


def peak_of_process(name: str, images: int, detections: int) -> float:
    """MiB that an evaluation adds to a process of its own."""
    return in_own_process(_evaluate_alone, name, images, detections)


def _evaluate_alone(name: str, images: int, detections: int) -> float:
    evaluate = evaluations(images, detections)[name]
    before = peak_resident_mib()
    evaluate()
    return peak_resident_mib() - before


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
from vfnet_yolof.config.packaged import load_config
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
