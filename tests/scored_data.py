"""Small sets of boxes and detections for the tests of `analysis`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from vfnet_yolof.analysis.scored import Scored, Truth
from vfnet_yolof.evaluation.coco_ap import DetectionArrays

Row = tuple[int, int, list[float]]  # image, class, x y width height


def truth(boxes: list[Row], *, images: int, classes: int, crowds: tuple[int, ...] = ()) -> Truth:
    """Ground truth of images 0, 1, ...; category ids count from 1."""
    array = np.array([box for _, _, box in boxes], np.float64).reshape(-1, 4)
    return Truth(
        "test",
        list(range(images)),
        [k + 1 for k in range(classes)],
        [f"class{k}" for k in range(classes)],
        None,
        np.array([image for image, _, _ in boxes], np.int64),
        np.array([k for _, k, _ in boxes], np.int64),
        array,
        array[:, 2] * array[:, 3],
        np.isin(np.arange(len(boxes)), crowds),
    )


def detections(rows: list[tuple[int, int, list[float], float]]) -> DetectionArrays:
    return DetectionArrays(
        np.array([r[0] for r in rows], np.int64),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.float64).reshape(-1, 4),
        np.array([r[3] for r in rows], np.float64),
    )


def random_scored(seed: int, *, images: int = 12, classes: int = 4, crowds: bool = True) -> Scored:
    """A detector that errs in every way; no two scores are equal and every class has boxes."""
    rng = np.random.default_rng(seed)
    boxes: list[Row] = [(0, k, [10.0 + 90 * k, 300.0, 50.0, 50.0]) for k in range(classes)]
    for image in range(images):
        for box in _boxes(rng, rng.integers(0, 6)):
            boxes.append((image, int(rng.integers(classes)), box))
    found = []
    for image, k, box in boxes:
        for spread in (2.0, 8.0, 25.0):
            if rng.random() < 0.6:
                other = k if rng.random() < 0.8 else int(rng.integers(classes))
                moved = np.array(box) + rng.normal(0, spread, 4)
                found.append((image, other, [*moved[:2], *(abs(moved[2:]) + 1)], 0.0))
    for image in range(images):
        for box in _boxes(rng, 4):
            found.append((image, int(rng.integers(classes)), box, 0.0))
    scores = rng.permutation(len(found)) / len(found)
    found = [(*row[:3], float(s)) for row, s in zip(found, scores, strict=True)]
    of_crowds = tuple(range(classes, len(boxes), 11)) if crowds else ()
    ground = truth(boxes, images=images, classes=classes, crowds=of_crowds)
    return Scored(ground, detections(found))


def found_of(scored: Scored) -> DetectionArrays:
    return DetectionArrays(scored.images, scored.classes, scored.boxes, scored.scores)


def write_files(folder: Path, scored: Scored) -> Path:
    ground = scored.truth
    """Annotations, images and results of it, as files below ``folder``."""
    (folder / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (500, 600, 3), np.uint8)
    for image in ground.image_ids:
        Image.fromarray(noise).save(folder / "images" / f"{image}.jpg")
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 600, "height": 500}
            for i in ground.image_ids
        ],
        "categories": [
            {"id": i, "name": name}
            for i, name in zip(ground.category_ids, ground.class_names, strict=True)
        ],
        "annotations": [
            {**box, "id": n, "category_id": box["category_id"] + 1}
            for n, box in enumerate(ground.as_dicts())
        ],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    rows = found_of(scored).as_dicts(slice(None), ground.image_ids, ground.category_ids)
    (folder / "results.json").write_text(json.dumps(list(rows)))
    return folder


def _boxes(rng: np.random.Generator, count: Any) -> list[list[float]]:
    corners, sides = rng.uniform(0, 400, (count, 2)), rng.uniform(20, 150, (count, 2))
    return np.concatenate([corners, sides], axis=1).tolist()
