"""COCO's precision and recall from compact arrays.

The definition is the official code's, pycocotools. ``hotcoco`` computes the same arrays in Rust, to
the last bit, and takes arrays as they are; it is used where it is installed, else
``faster-coco-eval``, pycocotools' code in C++. These two want a Python dictionary for each box.
Classes do not depend on each other in COCO's definition, so only one class's dictionaries exist at
a time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import numbers
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

AREAS = ("all", "small", "medium", "large")  # the order of pycocotools' areaRng
BACKENDS = ("hotcoco", "faster-coco-eval", "pycocotools")  # the fastest first


# The process in which hotcoco started its threads: a fork has none of them and would wait forever.
_used_in: int | None = None


class DetectionArrays(NamedTuple):
    """Detections of a data set, in the order in which they were found; D of them.

    Attributes:
        images: (D,) int64, position of the image in the data set.
        classes: (D,) int64, classes of the model.
        boxes: (D, 4) float32 x, y, width, height in pixels. scores: (D,) float32.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[DetectionArrays]) -> DetectionArrays:
        """All detections of several groups of images."""
        none = cls(
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            np.empty((0, 4), np.float32),
            np.empty(0, np.float32),
        )
        return cls(*(np.concatenate(arrays) for arrays in zip(none, *parts, strict=True)))

    def as_dicts(
        self, rows: np.ndarray | slice, image_ids: Sequence[Any], category_ids: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        """The detections ``rows`` as a results file has them, with the data set's ids."""
        columns = (x[rows].tolist() for x in self)
        for image, number, box, score in zip(*columns, strict=True):
            yield {
                "image_id": image_ids[image],
                "category_id": category_ids[number],
                "bbox": box,
                "score": score,
            }


class Curves(NamedTuple):
    """What COCO's figures are means of; -1 where there is no ground truth.

    Attributes:
        precision: (10 IoUs, 101 recalls, K classes, 4 areas) with all detections.
        recall: (10 IoUs, K classes, 4 areas, M) with the best of each image, as many as
            :func:`detection_limits` says; the last with all.
    """

    precision: np.ndarray
    recall: np.ndarray


def default_backend() -> str:
    """The first of ``BACKENDS`` that is installed; pycocotools always is."""
    return next((backend for backend in BACKENDS if _is_installed(backend)), BACKENDS[-1])


def checked_backend(backend: str | None) -> str:
    """``backend``, or the default for None.

    Raises:
        ValueError: it is unknown or not installed.
    """
    if backend is None:
        return default_backend()
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if not _is_installed(backend):
        raise ValueError(
            f"backend {backend!r} is not installed: install it, or leave backend out to use "
            f"{default_backend()!r}, which gives the same figures"
        )
    return backend


def _is_installed(backend: str) -> bool:
    return importlib.util.find_spec(backend.replace("-", "_")) is not None


def can_use_hotcoco() -> bool:
    """Whether it is installed, and this process was not forked from one that had used it."""
    return _is_installed("hotcoco") and _used_in in (None, os.getpid())


def hotcoco_module() -> Any:
    """``hotcoco``, about to be used: its threads are this process's from now on."""
    global _used_in
    import hotcoco

    _used_in = os.getpid()
    return hotcoco


def detection_limits(max_dets: int) -> list[int]:
    """How many of an image's best detections (of a class) recall is measured with: 1, 10 and all.

    All are ``max_dets``, and no limit is above it: [1, 10, 100] of 100, [1, 5] of 5, [1] of 1.

    Raises:
        ValueError: ``max_dets`` is not a whole number of at least 1.
    """
    whole = isinstance(max_dets, numbers.Integral) and not isinstance(max_dets, bool)
    if not whole or max_dets < 1:
        raise ValueError(
            f"max_dets_per_image must be a whole number of at least 1, got {max_dets!r}"
        )
    return [*(limit for limit in (1, 10) if limit < max_dets), int(max_dets)]


def coco_curves(
    annotations: Sequence[dict[str, Any]],
    detections: DetectionArrays,
    num_classes: int,
    max_dets: int = 100,
    backend: str | None = None,
) -> Curves:
    """Precision and recall of each class.

    Args:
        annotations: ``image_id`` (position in the data set), ``category_id`` (class of the
            model), ``bbox`` (x, y, width, height), ``area`` and ``iscrowd`` of each box.
        max_dets: detections of a class that count in an image, the best ones.
        backend: one of ``BACKENDS``; :func:`default_backend` by default. In a process that was
            forked after ``hotcoco`` had been used the next one takes its place.

    Of equal scores the detection in the image with the lower position comes first, which is
    pycocotools' order where positions follow the order of the ids.

    Raises:
        ValueError: see :func:`detection_limits` and :func:`checked_backend`.
    """
    backend, limits = checked_backend(backend), detection_limits(max_dets)
    if backend == "hotcoco" and not can_use_hotcoco():
        backend = next(x for x in BACKENDS[1:] if x == BACKENDS[-1] or _is_installed(x))
    if backend == "hotcoco":
        return _hotcoco(annotations, detections, num_classes, limits)
    truth: list[list[dict[str, Any]]] = [[] for _ in range(num_classes)]
    for number, annotation in enumerate(annotations, start=1):  # an id of 0 means "none" there
        truth[annotation["category_id"]].append({**annotation, "id": number})
    order = np.argsort(detections.classes, kind="stable")
    first = np.searchsorted(detections.classes[order], np.arange(num_classes + 1))
    images = range(int(detections.images.max(initial=0)) + 1)
    curves = []
    with _no_collector():
        for k in range(num_classes):
            rows = order[first[k] : first[k + 1]]
            found = list(detections.as_dicts(rows, images, range(num_classes)))
            for number, detection in enumerate(found, start=1):
                width, height = detection["bbox"][2:]
                detection.update(id=number, area=width * height, iscrowd=0)
            curves.append(_one_class(truth[k], found, k, limits, backend))
    return Curves(
        np.stack([c.precision for c in curves], axis=2),
        np.stack([c.recall for c in curves], axis=1),
    )


def _hotcoco(
    annotations: Sequence[dict[str, Any]],
    detections: DetectionArrays,
    num_classes: int,
    limits: list[int],
) -> Curves:
    """All classes at once. Ids count from 1 there."""
    hotcoco = hotcoco_module()

    def column(key: str, dtype: type) -> np.ndarray:
        return np.array([annotation[key] for annotation in annotations], dtype)

    images = column("image_id", np.int64) + 1
    count = int(max(images.max(initial=0), detections.images.max(initial=0) + 1))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of figures that no leader board has
        truth = hotcoco.COCO.from_arrays(
            [{"id": i, "file_name": "", "width": 1, "height": 1} for i in range(1, count + 1)],
            [{"id": k, "name": str(k)} for k in range(1, num_classes + 1)],
            images,
            column("category_id", np.int64) + 1,
            column("bbox", np.float64).reshape(-1, 4),
            area=column("area", np.float64),
            iscrowd=column("iscrowd", bool),
        )
        rows = (detections.images + 1, detections.boxes, detections.scores, detections.classes + 1)
        found = truth.load_res(np.column_stack([x.astype(np.float64) for x in rows]))
        evaluation = hotcoco.COCOeval(truth, found, "bbox")
        evaluation.params.max_dets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    result: Any = evaluation.eval
    return Curves(np.asarray(result["precision"])[..., -1], np.asarray(result["recall"]))


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Nothing in here is cyclic, but the collector would look at every box again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _one_class(
    truth: list[dict[str, Any]],
    found: list[dict[str, Any]],
    number: int,
    limits: list[int],
    backend: str,
) -> Curves:
    if not truth:  # nothing can be measured, whatever was found
        return Curves(np.full((10, 101, 4), -1.0), np.full((10, 4, len(limits)), -1.0))
    # Images with neither boxes nor detections of the class play no part.
    images = sorted({a["image_id"] for a in truth} | {d["image_id"] for d in found})
    content = {"images": [{"id": i} for i in images], "categories": [{"id": number}]}
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval

    def indexed(boxes: list[dict[str, Any]]) -> Any:
        coco = COCO()
        coco.dataset = {**content, "annotations": boxes}
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(indexed(truth), indexed(found), "bbox")
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    result = evaluation.eval
    return Curves(
        np.asarray(result["precision"])[:, :, 0, :, -1], np.asarray(result["recall"])[:, 0]
    )
