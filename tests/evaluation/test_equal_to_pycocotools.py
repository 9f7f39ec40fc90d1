"""Every figure and file, on odd data and with odd settings, against pycocotools by itself.

The other side is what anyone would run: pycocotools on the annotation file and on the file of
detections that the evaluator wrote.
"""

import contextlib
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.plain_coco import plain_curves
from detectron2.structures import Boxes, Instances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from vfnet_yolof.data import register_coco_json
from vfnet_yolof.evaluation import CocoEvaluator
from vfnet_yolof.evaluation.coco_ap import BACKENDS, DetectionArrays, coco_curves

LIMITS = [1, 2, 5, 9, 10, 11, 100, 101, 1000]  # of detections per image
ODD_AREAS = [0.0, 1.0, 32.0**2, 96.0**2, 96.0**2 + 1, 90_000.0, 1e10, 1e11]
_number = itertools.count()


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    pytest.importorskip(request.param.replace("-", "_"))
    return request.param


class OddData:
    """Annotations and detections, both with what is rare, decided by a seed.

    Few images with ids in any order, numbers with gaps or text; few categories with gaps, some
    without boxes or detections; crowds; areas that are not those of the boxes; boxes that are all
    tiny or huge, or occur twice; detections beyond the picture or without width; equal scores.
    """

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.scale = rng.choice([1e-3, 100.0, 100.0, 300.0, 1e6])
        self.crowds = rng.choice([0.0, 0.2, 1.0])
        self.odd_areas, self.flat, self.grid = rng.random(3) < 0.4
        self.image_ids: list[Any] = rng.permutation(1000)[: rng.integers(1, 7)].tolist()
        if rng.random() < 0.4:
            self.image_ids = [f"picture {i}" for i in self.image_ids]
        self.category_ids = (np.cumsum(rng.integers(1, 40, rng.integers(1, 5)))).tolist()
        self.digits = int(rng.integers(0, 4))
        truth = [np.abs(self.boxes(int(rng.integers(0, 6)))) for _ in self.image_ids]
        classes = [rng.integers(0, len(self.category_ids), len(x)) for x in truth]
        self.annotations = [
            self.annotation(image_id, int(k), box)
            for image_id, boxes, numbers in zip(self.image_ids, truth, classes, strict=True)
            for box, k in zip(boxes.tolist(), numbers, strict=True)
            for _ in range(1 + (rng.random() < 0.2))
        ]
        rng.shuffle(self.annotations)
        for number, annotation in enumerate(self.annotations, start=1):
            annotation["id"] = number
        empty = rng.random() < 0.1
        self.found = [
            self.detections(boxes[:0] if empty else boxes, numbers, 0 if empty else 5)
            for boxes, numbers in zip(truth, classes, strict=True)
        ]

    def boxes(self, count: int) -> np.ndarray:
        """(count, 4) x, y, width, height."""
        corners = self.rng.uniform(-0.2, 1, (count, 2))
        sides = self.rng.uniform(0.1, 1, (count, 2))
        boxes = np.concatenate([corners, sides], axis=1)
        return (boxes.round(1) if self.grid else boxes) * self.scale

    def annotation(self, image_id: Any, k: int, box: list[float]) -> dict[str, Any]:
        area = box[2] * box[3]
        if self.odd_areas:
            area = float(self.rng.choice([*ODD_AREAS, area]))
        return {
            "image_id": image_id,
            "category_id": self.category_ids[k],
            "bbox": box,
            "area": area,
            "iscrowd": int(self.rng.random() < self.crowds),
        }

    def detections(self, boxes: np.ndarray, classes: np.ndarray, most: int) -> Instances:
        """Each of ``boxes`` some times, exactly or nearly, and up to ``most`` elsewhere."""
        rng = self.rng
        repeats = int(rng.integers(0, 4))
        others = self.boxes(int(rng.integers(0, most + 1)))
        noise = [rng.normal(0, 0.03, boxes.shape) * rng.choice([0, 1]) for _ in range(repeats)]
        xywh = np.concatenate([others, *(boxes + x * self.scale for x in noise)])
        if self.flat:
            xywh[rng.random(len(xywh)) < 0.3, 2] = 0
        numbers = rng.integers(0, len(self.category_ids), len(others))
        made = Instances((100, 100))
        xywh[:, 2:] = np.abs(xywh[:, 2:]) + xywh[:, :2]
        made.pred_boxes = Boxes(torch.from_numpy(xywh).float())
        scores = torch.from_numpy(rng.random(len(xywh)).round(self.digits))
        made.scores = scores.float()
        kinds = np.concatenate([numbers, *[classes[: len(boxes)]] * repeats])
        made.pred_classes = torch.from_numpy(kinds.astype(np.int64))
        return made

    def file(self, folder: Path) -> Path:
        side = 2 * max(1, int(self.scale))
        content = {
            "info": {},
            "images": [
                {"id": i, "file_name": f"{n}.png", "width": side, "height": side}
                for n, i in enumerate(self.image_ids)
            ],
            "categories": [{"id": i, "name": f"kind {i}"} for i in self.category_ids],
            "annotations": self.annotations,
        }
        path = folder / f"odd_{next(_number)}.json"
        path.write_text(json.dumps(content))
        return path


def by_pycocotools(truth: Path, found: Path, limit: int) -> dict[str, float]:
    """All figures, in per cent; NaN where pycocotools has -1."""
    limits = [n for n in (1, 10) if n < limit] + [limit]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        if json.loads(found.read_text()):
            results = coco.loadRes(str(found))
        else:  # which loadRes refuses
            results = COCO()
            results.dataset = coco.dataset | {"annotations": []}
            results.createIndex()
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
        precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"]
        figures = {"AP": precision[..., 0], "AP50": precision[0, ..., 0]}
        figures |= {"AP75": precision[5, ..., 0]}
        for i, area in enumerate("sml", start=1):
            figures[f"AP{area}"], figures[f"AR{area}"] = precision[..., i], recall[:, :, i, -1]
        figures |= {f"AR{n}": recall[:, :, 0, i] for i, n in enumerate(limits)}
        for k, number in enumerate(evaluation.params.catIds):
            figures[f"AP-kind {number}"] = precision[:, :, k, 0]
            figures[f"AP50-kind {number}"] = precision[0, :, k, 0]
        means = {k: x[x > -1].mean() if (x > -1).any() else np.nan for k, x in figures.items()}
        if limits == [1, 10, 100]:  # the only setting that its own summary can print
            evaluation.summarize()
            names = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
            names += ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
            printed = np.where(evaluation.stats < 0, np.nan, evaluation.stats)
            assert [means[n] for n in names] == pytest.approx(printed.tolist(), nan_ok=True)
    return {k: 100 * float(x) for k, x in means.items()}


# The folder is used again, with a file of its own for each example.
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10**6), limit=st.sampled_from(LIMITS))
def test_all_figures(tmp_path: Path, backend: str, seed: int, limit: int) -> None:
    data = OddData(seed)
    truth = data.file(tmp_path)
    register_coco_json(f"odd_{backend}_{truth.stem}", truth, tmp_path)
    evaluator = CocoEvaluator(
        f"odd_{backend}_{truth.stem}",
        output_dir=tmp_path,
        max_dets_per_image=limit,
        backend=backend,
    )
    for i in data.rng.permutation(len(data.image_ids)):
        evaluator.process([{"image_id": data.image_ids[i]}], [{"instances": data.found[i]}])
    results = evaluator.evaluate()
    if not data.annotations:
        assert results == {}
        return
    want = by_pycocotools(truth, tmp_path / "coco_instances_results.json", limit)
    assert results["bbox"].keys() == want.keys()
    assert dict(results["bbox"]) == pytest.approx(want, rel=1e-12, abs=1e-9, nan_ok=True)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10**6), limit=st.sampled_from(LIMITS))
def test_all_curves(backend: str, seed: int, limit: int) -> None:
    """Point by point: two wrong curves can have the same mean."""
    data = OddData(seed)
    positions = {image_id: i for i, image_id in enumerate(sorted(data.image_ids))}
    numbers = {category_id: k for k, category_id in enumerate(data.category_ids)}
    annotations = [
        a | {"image_id": positions[a["image_id"]], "category_id": numbers[a["category_id"]]}
        for a in data.annotations
    ]
    if data.flat:  # which no annotation file may have
        for a in annotations[::4]:
            a["bbox"] = [*a["bbox"][:3], 0.0]
    parts = []
    for image_id, found in zip(data.image_ids, data.found, strict=True):
        boxes = found.pred_boxes.tensor.numpy().copy()
        boxes[:, 2:] -= boxes[:, :2]
        where = np.full(len(boxes), positions[image_id])
        parts.append(
            DetectionArrays(where, found.pred_classes.numpy(), boxes, found.scores.numpy())
        )
    joined = DetectionArrays.joined(parts)
    want = plain_curves(annotations, joined, len(numbers), len(positions), limit)
    got = coco_curves(annotations, joined, len(numbers), limit, backend)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-12


def test_equal_scores_are_taken_in_the_order_of_the_ids(tmp_path: Path, backend: str) -> None:
    """As pycocotools does, wherever the images stand in the annotation file."""
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in ("b", "z", "a")
    ]
    box = {"image_id": "b", "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0}
    content = {"images": images, "categories": [{"id": 1, "name": "x"}]}
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(content | {"annotations": [box | {"id": 1}]}))
    register_coco_json(f"ties_{backend}", truth, tmp_path)
    evaluator = CocoEvaluator(f"ties_{backend}", output_dir=tmp_path, backend=backend)
    for image_id in ("b", "z", "a"):  # one right, two wrong, all with the same score
        found = Instances((100, 100))
        found.pred_boxes = Boxes(torch.tensor([[0.0, 0, 50, 50]]))
        found.scores, found.pred_classes = torch.tensor([0.5]), torch.tensor([0])
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    results = evaluator.evaluate()["bbox"]
    assert results["AP"] == pytest.approx(50.0)  # a (wrong), b (right), z (wrong)
    want = by_pycocotools(truth, tmp_path / "coco_instances_results.json", 100)
    assert results["AP"] == pytest.approx(want["AP"])
