"""Validation images with the detections beside the ground truth."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image, ImageDraw
from torch import nn

from ..data.loader import MappedDataset, mapped_dataset
from ..drawing.canvas import display_scale, save_image
from ..drawing.fonts import DEFAULT, sized
from ..drawing.visualization import draw_ground_truth, draw_instances
from ..modeling.by_size import detect_by_size
from ..utils.images import read_image
from .ending import writing
from .evaluation import Evaluation, kept_modes

SCORE_THRESHOLD = 0.3  # less sure detections are not drawn
_GAP = 8  # px between the two halves
_SIDES = ("predicted", "ground truth")


def draw_examples(
    model: nn.Module,
    evaluation: Evaluation,
    class_names: Sequence[str],
    folder: Path,
    *,
    count: int = 10,
    seconds: float = float("inf"),
) -> int:
    """Write images of the validation set, spread evenly over it, into a folder.

    They go the way of an evaluation: its loader, its mapper, its order of classes.

    Args:
        model: a detector; its modes are put back.
        evaluation: of the run.
        class_names: of the validation set, by class index.
        folder: earlier images of this function are deleted.
        count: of images.
        seconds: after which no further image is begun.

    Returns:
        How many were written; 0 where the data set's records name no image files.
    """
    dataset = mapped_dataset(evaluation.loader)
    if dataset is None or not _names_a_file(dataset.record(0)):
        return 0
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("[0-9][0-9]_*.jpg"):
            old.unlink()
    began, written = time.monotonic(), 0
    for record, found in _detections(model, dataset, _evenly(len(dataset), count)):
        image = read_image(record["file_name"], "RGB")
        found = _with_classes_of_data(found, evaluation.class_lookup)
        truth = _ground_truth(record, image.shape[:2])
        scale = display_scale(*image.shape[:2])
        drawn = side_by_side(
            draw_instances(image, found, class_names, score_thresh=SCORE_THRESHOLD, scale=scale),
            draw_ground_truth(image, truth, class_names, scale=scale),
        )
        stem = re.sub(r"[^\w.+@-]", "_", Path(record["file_name"]).stem)
        path = folder / f"{written + 1:02d}_{stem}.jpg"
        with writing(path):
            save_image(drawn, path)
        written += 1
        if time.monotonic() - began > seconds:
            break
    return written


def _names_a_file(record: Mapping[str, Any]) -> bool:
    return Path(str(record.get("file_name", ""))).is_file()


def _evenly(total: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def _detections(
    model: nn.Module, dataset: MappedDataset, indices: Sequence[int]
) -> Iterator[tuple[dict[str, Any], Instances]]:
    """Record and detections, in pixels of the file's image, one by one."""
    for index in indices:
        with kept_modes(model), torch.no_grad():
            model.eval()
            found = detect_by_size(model, [dataset[index]])[0]["instances"]
        yield dataset.record(index), found.to("cpu")


def _with_classes_of_data(found: Instances, lookup: Sequence[int] | None) -> Instances:
    if lookup is not None:
        found.pred_classes = torch.tensor(lookup)[found.pred_classes]
    return found


def _ground_truth(record: Mapping[str, Any], size: tuple[int, int]) -> Instances:
    """Boxes and classes of a record; crowd regions are left out."""
    annotations = [a for a in record.get("annotations", ()) if not a.get("iscrowd")]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    truth = Instances(size)
    truth.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    truth.gt_classes = torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64)
    return truth


def side_by_side(left: np.ndarray, right: np.ndarray) -> Image.Image:
    """Two (H, W, 3) images of any sizes on one canvas, below what they show."""
    font = sized(DEFAULT, max(11, min(24, left.shape[1] // 24)))
    top = int(font.size * 1.6)
    height = top + max(left.shape[0], right.shape[0])
    canvas = Image.new("RGB", (left.shape[1] + _GAP + right.shape[1], height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for image, x, text in zip((left, right), (0, left.shape[1] + _GAP), _SIDES, strict=True):
        draw.text((x + 4, font.size * 0.2), text, (0, 0, 0), font)
        canvas.paste(Image.fromarray(image), (x, top))
    return canvas
