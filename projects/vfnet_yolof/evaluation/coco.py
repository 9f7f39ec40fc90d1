"""COCO box AP with per-class figures, and submission files for data without annotations."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import math
import os
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from tabulate import tabulate

from ..data.faults import shown
from ..utils.files import write_atomically
from .coco_ap import AREAS, Curves, DetectionArrays, checked_backend, coco_curves, detection_limits
from .federated import is_federated
from .ground_truth import load_ground_truth

logger = logging.getLogger(f"detectron2.{__name__}")  # below Detectron2's, to share its handlers

_ROWS_AT_ONCE = 10_000  # detections that are Python objects while a file is written
_RANGES = {"APs": "below 32^2 px", "APm": "from 32^2 to 96^2 px", "APl": "above 96^2 px"}


class CocoEvaluator(DatasetEvaluator):
    """Box AP of a data set in COCO's definition; see :mod:`.coco_ap` for the code that is used.

    Results, in per cent: ``{"bbox": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10",
    "AR100", "ARs", "ARm", "ARl", "AP-<class>", "AP50-<class>"}}``; instead of 100,
    ``max_dets_per_image``, and no AR of a number above it. A figure that has no ground truth to be
    measured on is NaN, and the log says so; without detections every other figure is 0.

    They are those of pycocotools on the annotation file and the file of all detections below.

    Detections are kept in arrays, 32 bytes each.

    With `output_dir` it writes, each file complete or not at all:

    * ``coco_instances_results.json``: all detections with the category ids of the annotation file,
      which is what COCO's evaluation server takes;
    * ``per_class.csv``: class, boxes, detections, AP, AP50;
    * ``metrics.json``: all results, null instead of NaN.

    Where the annotation file has no annotations (COCO test-dev) only the first is written and the
    results are ``{}``.
    """

    def __init__(
        self,
        dataset_name: str | Sequence[str],
        *,
        output_dir: str | os.PathLike[str] | None = None,
        distributed: bool = True,
        max_dets_per_image: int = 100,
        backend: str | None = None,
    ) -> None:
        """Check and keep the options.

        Args:
            dataset_name: one registered data set.
            output_dir: folder of the files; None writes none.
            distributed: collect from all ranks.
            max_dets_per_image: the best detections of a class that count in an image, at least 1.
            backend: one of ``coco_ap.BACKENDS``; by default the fastest that is installed.

        Raises:
            KeyError, FileNotFoundError: the data set is unknown or its file is missing.
            ValueError: several names; nothing to compare with and no ``output_dir`` to write to; a
                limit or backend that cannot be used.
        """
        names = [dataset_name] if isinstance(dataset_name, str) else list(dataset_name)
        if len(names) != 1:
            raise ValueError(f"CocoEvaluator evaluates one data set, got {names}.")
        self.dataset_name = names[0]
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.distributed = distributed
        self.max_dets_per_image = max_dets_per_image
        self._limits = detection_limits(max_dets_per_image)
        self.backend = checked_backend(backend)
        truth = load_ground_truth(self.dataset_name)
        self._category_ids, self.class_names = truth.category_ids, truth.class_names
        self.has_ground_truth = truth.is_annotated
        if not self.has_ground_truth and self.output_dir is None:
            raise ValueError(
                f"Data set {self.dataset_name!r} has no annotations to evaluate on: give "
                "output_dir, so that the detections can be written for submission."
            )
        if not self.has_ground_truth:
            logger.warning(
                "Data set %s has images and no annotation at all: it is taken for a test set such "
                "as COCO's test-dev, so detections are written and no AP is computed.",
                self.dataset_name,
            )
        if is_federated(MetadataCatalog.get(self.dataset_name).get("json_file") or ""):
            logger.warning(
                "Images of %s were searched for some classes only (neg_category_ids); COCO's "
                "rules take what is not marked for background. evaluate --report has AP by LVIS's.",
                self.dataset_name,
            )
        self._known_ids = truth.image_ids
        self._position = {image_id: i for i, image_id in enumerate(self._known_ids)}
        self._truth = truth.boxes
        self.reset()

    def reset(self) -> None:
        self._image_ids: dict[Any, None] = {}  # a set in the order of evaluation
        self._found: list[DetectionArrays] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Take the detections of a batch.

        Args:
            inputs: records with ``image_id``.
            outputs: ``{"instances": Instances}`` per image.

        Raises:
            ValueError: an image that the data set does not have or that was here before; a
                detection with a number that is not finite or a class that the data set lacks.
        """
        for record, output in zip(inputs, outputs, strict=True):
            image_id = record["image_id"]
            if image_id not in self._position:
                raise ValueError(
                    f"Image id {image_id!r} is not in data set {self.dataset_name!r}: the test "
                    "loader and the evaluator differ in their data."
                )
            if image_id in self._image_ids:
                raise self._came_twice([image_id])
            found = detection_arrays(output["instances"], self._position[image_id])
            self._check(found, image_id)
            self._image_ids[image_id] = None
            self._found.append(found)

    def _check(self, found: DetectionArrays, image_id: Any) -> None:
        """Refuse detections of one image that have no place in the results."""
        finite = np.isfinite(found.scores) & np.isfinite(found.boxes).all(axis=1)
        if not finite.all():
            number = int(finite.argmin())
            raise ValueError(
                f"Detection {number} of image id {image_id!r} has score {found.scores[number]} and "
                f"box {found.boxes[number].tolist()} (x, y, width, height), which must be finite "
                "numbers: look for NaN in the weights, or evaluate without mixed precision."
            )
        count = len(self._category_ids)
        known = (found.classes >= 0) & (found.classes < count)
        if not known.all():
            raise ValueError(
                f"The model predicts class {found.classes[known.argmin()]} in image id "
                f"{image_id!r}, but data set {self.dataset_name!r} has {count} classes (0 to "
                f"{count - 1}): set model.num_classes, or evaluate on the data set it was trained "
                "for."
            )

    def _came_twice(self, image_ids: list[Any]) -> ValueError:
        others = f" and {len(image_ids) - 1} others" if len(image_ids) > 1 else ""
        return ValueError(
            f"Image id {image_ids[0]!r}{others} of data set {self.dataset_name!r} came to the "
            "evaluator twice, which would count its detections twice: evaluate each image once, "
            "and call reset() before another evaluation."
        )

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Results on the main process, ``{}`` on the others; see the class for their keys.

        Raises:
            ValueError: on every process, an image that several processes evaluated.
        """
        image_ids, detections = self._gather()
        counts = Counter(image_ids)
        if len(counts) < len(image_ids):
            raise self._came_twice([image_id for image_id, n in counts.items() if n > 1])
        if self.distributed and not comm.is_main_process():
            return OrderedDict()
        self._warn_of_missing_images(len(image_ids))
        if self.output_dir is not None:
            path = self.output_dir / "coco_instances_results.json"
            _write(path, self._as_json(detections))
            logger.info("%d detections written to %s", len(detections.scores), path)
        if not self.has_ground_truth:
            logger.info(
                "Data set %s has no annotations, so nothing is evaluated; "
                "the file above is what an evaluation server takes.",
                self.dataset_name,
            )
            return OrderedDict()
        if not len(detections.scores):
            logger.warning("The model detected nothing in %d images.", len(image_ids))
        curves = coco_curves(
            self._truth,
            detections,
            len(self._category_ids),
            self.max_dets_per_image,
            self.backend,
        )
        results = self._summarise(curves)
        rows = self._per_class_rows(curves.precision, detections)
        for row in rows:
            results[f"AP-{row['class']}"] = row["AP"]
            results[f"AP50-{row['class']}"] = row["AP50"]
        self._report(results, rows)
        return OrderedDict(bbox=results)

    def _gather(self) -> tuple[list[Any], DetectionArrays]:
        """Ids of all evaluated images, and on the main process all detections."""
        ids, found = list(self._image_ids), DetectionArrays.joined(self._found)
        if not self.distributed:
            return ids, found
        comm.synchronize()
        ids = list(itertools.chain.from_iterable(comm.all_gather(ids)))
        return ids, DetectionArrays.joined(comm.gather(found, dst=0))

    def _as_json(self, detections: DetectionArrays) -> Iterator[str]:
        """Pieces of the results file."""
        separator = "["
        for start in range(0, len(detections.scores), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            for one in detections.as_dicts(rows, self._known_ids, self._category_ids):
                yield separator + json.dumps(one)
                separator = ", "
        yield "]" if separator == ", " else "[]"

    def _warn_of_missing_images(self, evaluated: int) -> None:
        if evaluated < len(self._position):
            logger.warning(
                "Only %d of the %d images of %s were run; the others count as without detections.",
                evaluated,
                len(self._position),
                self.dataset_name,
            )

    def _summarise(self, curves: Curves) -> dict[str, float]:
        precision, recall = curves
        results = {
            "AP": mean_in_percent(precision[..., 0]),
            "AP50": mean_in_percent(precision[0, ..., 0]),
            "AP75": mean_in_percent(precision[5, ..., 0]),
        }
        results |= {f"AP{AREAS[i][0]}": mean_in_percent(precision[..., i]) for i in (1, 2, 3)}
        for i, count in enumerate(self._limits):
            results[f"AR{count}"] = mean_in_percent(recall[:, :, 0, i])
        return results | {
            f"AR{AREAS[i][0]}": mean_in_percent(recall[:, :, i, -1]) for i in (1, 2, 3)
        }

    def _per_class_rows(
        self, precision: np.ndarray, detections: DetectionArrays
    ) -> list[dict[str, Any]]:
        counted = [a["category_id"] for a in self._truth if not a["iscrowd"]]
        boxes, found = (
            np.bincount(np.asarray(x, np.int64), minlength=len(self._category_ids)).tolist()
            for x in (counted, detections.classes)
        )
        return [
            {
                "category_id": category_id,
                "class": name,
                "boxes": boxes[k],
                "detections": found[k],
                "AP": mean_in_percent(precision[:, :, k, 0]),
                "AP50": mean_in_percent(precision[0, :, k, 0]),
            }
            for k, (category_id, name) in enumerate(
                zip(self._category_ids, self.class_names, strict=True)
            )
        ]

    def _report(self, results: dict[str, float], rows: list[dict[str, Any]]) -> None:
        metrics = [key for key in results if "-" not in key]
        table = tabulate([[results[m] for m in metrics]], metrics, "pipe", floatfmt=".3f")
        logger.info("Box AP on %s:\n%s", self.dataset_name, table)
        for metric, extent in _RANGES.items():
            if math.isnan(results[metric]):
                logger.info("%s is nan: no ground truth in this area range (%s).", metric, extent)
        table_rows = [
            [shown(r["class"]), r["boxes"], r["detections"], r["AP"], r["AP50"]] for r in rows
        ]
        headers = ["class", "boxes", "detections", "AP", "AP50"]
        logger.info("Per class:\n%s", tabulate(table_rows, headers, "pipe", floatfmt=".3f"))
        absent = [shown(r["class"]) for r in rows if not r["boxes"]]
        if absent:
            logger.info("nan: %s has no box of %s.", self.dataset_name, ", ".join(absent))
        if self.output_dir is None:
            return
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(r | {m: f"{r[m]:.3f}" for m in ("AP", "AP50")} for r in rows)
        _write(self.output_dir / "per_class.csv", [buffer.getvalue()])
        plain = {k: None if math.isnan(v) else v for k, v in results.items()}
        content = {"dataset": self.dataset_name, "bbox": plain}
        _write(self.output_dir / "metrics.json", [json.dumps(content, indent=2) + "\n"])


def detection_arrays(instances: Instances, image: int) -> DetectionArrays:
    """Detections of one image; ``image`` is its position in the data set."""
    boxes = instances.pred_boxes.tensor.detach().float().cpu().numpy().copy()
    boxes[:, 2:] -= boxes[:, :2]
    return DetectionArrays(
        np.full(len(boxes), image, np.int64),
        instances.pred_classes.cpu().numpy().astype(np.int64),
        boxes,
        instances.scores.detach().float().cpu().numpy().copy(),
    )


def mean_in_percent(precision: np.ndarray) -> float:
    """Mean in per cent over what is not -1 (no ground truth); NaN where nothing is left."""
    measured = precision[precision > -1]
    return float(measured.mean() * 100) if measured.size else float("nan")


def _write(path: Path, pieces: Iterable[str]) -> None:
    write_atomically(path, lambda file: file.writelines(piece.encode() for piece in pieces))
