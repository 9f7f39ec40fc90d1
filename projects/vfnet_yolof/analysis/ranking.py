"""How much better a detector ranks with the truth in place of its predictions (VFNet, table 1).

Scores, boxes and centerness of the positive locations are replaced, each by itself, before anything
is chosen; all other locations stay as they were predicted. What is left is the detector as it is:
its top-k, its NMS, COCO's AP.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from omegaconf import OmegaConf
from tabulate import tabulate
from torch import Tensor

from ..config.options import ConfigError
from ..evaluation.coco import detection_arrays, mean_in_percent
from ..evaluation.coco_ap import DetectionArrays, coco_curves
from ..evaluation.ground_truth import GroundTruth, load_ground_truth
from ..modeling.meta_arch.outputs import ImageOutputs
from ..utils.files import write_atomically
from .positives import Positives, Seen, by_level, seen_images
from .subject import Subject

TABLE, FIGURES = "ranking.md", "ranking.json"


class Column(NamedTuple):
    """One column of the paper's table: what is replaced at the positive locations, and by what.

    Attributes:
        name: as the paper calls it. factor: what multiplies the scores: "" for nothing,
            "predicted", "centerness" or "iou". score: of the ground truth's class, "" for the
            predicted one, "one" or "iou". boxes: whether boxes are those of the ground truth.
        paper: AP of FCOS+ATSS (ResNet-50) on COCO val2017.
    """

    name: str
    factor: str
    score: str
    boxes: bool
    paper: float


# In the order of the table. Its check marks are lost in text; section 3 tells which is which.
COLUMNS = (
    Column("original", "", "", False, 38.5),
    Column("original", "predicted", "", False, 39.2),
    Column("gt_ctr", "centerness", "", False, 41.1),
    Column("gt_ctr_iou", "iou", "", False, 43.5),
    Column("gt_bbox", "", "", True, 56.1),
    Column("gt_bbox", "predicted", "", True, 56.3),
    Column("gt_cls", "", "one", False, 43.1),
    Column("gt_cls", "predicted", "one", False, 58.1),
    Column("gt_cls_iou", "", "iou", False, 74.7),
    Column("gt_cls_iou", "predicted", "iou", False, 67.4),
)


@dataclass(frozen=True)
class Measured:
    """AP, AP50 and AP75 of one column, in per cent."""

    column: Column
    ap: float
    ap50: float
    ap75: float


@dataclass(frozen=True)
class Ranking:
    """The table of one detector.

    Attributes:
        rows: of each column that has a meaning for the detector.
        left_out: names of the others.
        images, boxes: how many were looked at; boxes without crowds. positives: locations.
        mean_iou: of the positives' boxes.
    """

    rows: list[Measured]
    left_out: list[str]
    images: int
    boxes: int
    positives: int
    mean_iou: float

    def of(self, name: str, factor: str = "") -> Measured | None:
        """The row of a column, None where it is left out."""
        found = [x for x in self.rows if (x.column.name, x.column.factor) == (name, factor)]
        return found[0] if found else None


def columns_for(has_branch: bool) -> list[Column]:
    """Those that have a meaning: columns with a factor need a branch that predicts one."""
    return [column for column in COLUMNS if has_branch or not column.factor]


def study_ranking(subject: Subject) -> Ranking:
    """Run a detector over its test images, once, and evaluate every column.

    Raises:
        ConfigError: the images have no boxes to compare with.
        DataLoadingError: an image cannot be read.
    """
    truth = load_ground_truth(subject.dataset)
    position = {image_id: i for i, image_id in enumerate(truth.image_ids)}
    lookup = torch.tensor(subject.class_lookup, device=subject.model.device)
    columns: list[Column] = []
    found: dict[Column, list[DetectionArrays]] = {}
    images: list[int] = []
    ious: list[Tensor] = []
    for seen in seen_images(subject):
        if not images:
            columns = columns_for(seen.outputs.factors is not None)
            found = {column: [] for column in columns}
        images.append(position[seen.inputs["image_id"]])
        ious.append(seen.positives.iou.cpu())
        for column in columns:
            arrays = _detected(subject, seen, column, lookup, images[-1])
            found[column].append(arrays)
    annotations = _annotations(truth, images, subject)
    limit = OmegaConf.select(subject.cfg, "dataloader.evaluator.max_dets_per_image") or 100
    rows = []
    for column in columns:
        detections = DetectionArrays.joined(found.pop(column))
        curves = coco_curves(annotations, detections, len(truth.class_names), limit)
        precision = curves.precision[..., 0]
        ap, ap50, ap75 = (mean_in_percent(precision[x]) for x in (slice(None), 0, 5))
        rows.append(Measured(column, ap, ap50, ap75))
    joined = torch.cat(ious)
    return Ranking(
        rows,
        list(dict.fromkeys(_title(x) for x in COLUMNS if x not in columns)),
        len(images),
        sum(not x["iscrowd"] for x in annotations),
        len(joined),
        float(joined.double().mean()) if len(joined) else 0.0,
    )


def _annotations(
    truth: GroundTruth, images: Sequence[int], subject: Subject
) -> list[dict[str, Any]]:
    """The boxes of the images that were looked at."""
    chosen = set(images)
    boxes = [box for box in truth.boxes if box["image_id"] in chosen]
    if not any(not box["iscrowd"] for box in boxes):
        raise ConfigError(
            f"{subject.dataset}: the {len(chosen)} images that were looked at have no boxes to "
            "compare detections with: name annotated data, or more images with --images."
        )
    return boxes


@torch.no_grad()
def _detected(
    subject: Subject, seen: Seen, column: Column, lookup: Tensor, image: int
) -> DetectionArrays:
    """The detections of one image, with the data set's classes, in pixels of the file."""
    replaced = substituted(seen.outputs, seen.positives, column)
    instances = subject.model.postprocessor(*replaced).instances
    height, width = (
        seen.inputs.get(key, size)
        for key, size in zip(("height", "width"), instances.image_size, strict=True)
    )
    instances = detector_postprocess(instances, height, width)
    instances.pred_classes = lookup[instances.pred_classes]
    return detection_arrays(instances, image)


def substituted(outputs: ImageOutputs, positives: Positives, column: Column) -> ImageOutputs:
    """What the network says of an image, with the truth of ``column`` at the positives.

    Raises:
        ValueError: the column multiplies by a factor that the detector has no branch for.
    """
    places = by_level(outputs, positives.rows)
    logits = outputs.logits
    if column.score:
        value = positives.iou if column.score == "iou" else torch.ones_like(positives.iou)
        logits = [
            x.float().index_put((index, positives.classes[here]), value[here].logit())
            for x, (here, index) in zip(logits, places, strict=True)
        ]
    factors = None
    if column.factor:
        factors = _factors(outputs, positives, column.factor, places)
    decode = outputs.decode
    if column.boxes:
        boxes_at = [
            torch.full_like(x[:, 0], -1, dtype=torch.int64).index_put((index,), here)
            for x, (here, index) in zip(outputs.logits, places, strict=True)
        ]

        def decode(level: int, index: Tensor) -> Tensor:
            predicted, which = outputs.decode(level, index), boxes_at[level][index]
            if not len(positives.boxes):
                return predicted
            true = positives.boxes[which.clamp(min=0)].to(predicted)
            return torch.where(which[..., None] >= 0, true, predicted)

    return outputs._replace(logits=logits, factors=factors, decode=decode)


def _factors(
    outputs: ImageOutputs,
    positives: Positives,
    kind: str,
    places: Sequence[tuple[Tensor, Tensor]],
) -> list[Tensor]:
    """(R_l,) of each level."""
    if outputs.factors is None:
        raise ValueError("the detector has no branch whose factor could be replaced")
    if kind == "predicted":
        return outputs.factors
    value = positives.iou if kind == "iou" else positives.centerness
    if value is None:
        raise ValueError("the detector has anchors, in which no location has a centerness")
    return [
        x.index_put((index,), value[here].to(x))
        for x, (here, index) in zip(outputs.factors, places, strict=True)
    ]


def table(ranking: Ranking) -> str:
    """Markdown, a line for each column of the paper's table."""
    rows = [
        [*_names(x.column), *(f"{v:.1f}" for v in (x.ap, x.ap50, x.ap75)), f"{x.column.paper:.1f}"]
        for x in ranking.rows
    ]
    headers = ["replaced", "w/ ctr", "AP", "AP50", "AP75", "paper: FCOS+ATSS, COCO"]
    return tabulate(rows, headers, "pipe", disable_numparse=True)


def _names(column: Column) -> tuple[str, str]:
    return column.name, "x" if column.factor else ""


def _title(column: Column) -> str:
    return f"{column.name} w/ ctr" if column.factor == "predicted" else column.name


def told(ranking: Ranking) -> list[str]:
    """Sentences below the table: what it is of, what is seen, and what is left out."""
    said = [
        f"{ranking.images} images with {ranking.boxes} boxes; {ranking.positives} positive "
        f"locations, whose boxes have a mean IoU of {ranking.mean_iou:.3f} with their ground truth."
    ]
    best = ranking.of("gt_cls_iou")
    plain = ranking.of("original", "predicted") or ranking.of("original")
    if best is not None and plain is not None:
        said.append(
            f"With the IoU as the score of the class, AP is {best.ap:.1f} instead of "
            f"{plain.ap:.1f}: better scores of the same boxes could bring {best.ap - plain.ap:.1f}."
        )
    if without := ranking.of("original") if ranking.of("original", "predicted") else None:
        said.append(f"Without its quality branch the detector has AP {without.ap:.1f}.")
    if ranking.left_out:
        said.append(
            f"Left out, as the detector has no centerness branch: {', '.join(ranking.left_out)}."
        )
    return said


def write_ranking(ranking: Ranking, folder: Path, facts: dict[str, Any]) -> Path:
    """Write ``ranking.md`` and ``ranking.json``; returns the first.

    Args:
        facts: how it was made: command, model, weights, data.

    Raises:
        FileWriteError: one of them cannot be written.
    """
    rows = [
        {
            **x.column._asdict(),
            **{k: None if math.isnan(v) else v for k, v in _figures(x).items()},
        }
        for x in ranking.rows
    ]
    counts = {k: getattr(ranking, k) for k in ("images", "boxes", "positives", "mean_iou")}
    content = {**facts, **counts, "columns": rows, "left_out": ranking.left_out}
    text = "\n".join(
        [
            table(ranking),
            "",
            *(line for sentence in told(ranking) for line in (sentence, "")),
            *(f"- {key}: {value}" for key, value in facts.items()),
            "",
        ]
    )
    write_atomically(folder / FIGURES, lambda f: f.write(json.dumps(content, indent=2).encode()))
    path = folder / TABLE
    write_atomically(path, lambda f: f.write(text.encode()))
    return path


def _figures(row: Measured) -> dict[str, float]:
    return {"AP": row.ap, "AP50": row.ap50, "AP75": row.ap75}
