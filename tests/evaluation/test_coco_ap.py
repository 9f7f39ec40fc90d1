"""Both ways to COCO's figures are the official code's, number by number."""

import json
import multiprocessing
import tracemalloc

import numpy as np
import pytest
import torch
from benchmarks.plain_coco import plain_curves, synthetic_data
from detectron2.structures import Boxes, Instances
from vfnet_yolof.data import register_coco_json
from vfnet_yolof.evaluation import CocoEvaluator
from vfnet_yolof.evaluation.coco_ap import (
    BACKENDS,
    Curves,
    DetectionArrays,
    coco_curves,
    default_backend,
)

CLASSES = 7


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    pytest.importorskip(request.param.replace("-", "_"))
    return request.param


def twelve_numbers(curves: Curves) -> list[float]:
    precision, recall = curves
    parts = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0]]
    parts += [precision[..., i] for i in (1, 2, 3)]
    parts += [recall[:, :, 0, i] for i in range(3)] + [recall[:, :, i, 2] for i in (1, 2, 3)]
    return [float(x[x > -1].mean()) for x in parts]


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_pycocotools(backend, seed):
    """With crowds, equal scores, images without boxes, without detections, without either."""
    annotations, detections = synthetic_data(60, 40, CLASSES, boxes_per_image=3.0, seed=seed)
    annotations = [a for a in annotations if a["category_id"] != 3]  # a class without boxes
    kept = (detections.images % 9 != 0) & (detections.classes != 5)  # one without detections
    detections = DetectionArrays(*(x[kept] for x in detections))
    assert sum(a["iscrowd"] for a in annotations) > 0
    want = plain_curves(annotations, detections, CLASSES, num_images=70)
    got = coco_curves(annotations, detections, CLASSES, backend=backend)
    assert twelve_numbers(got) == pytest.approx(twelve_numbers(want), abs=1e-9)
    assert 0.05 < twelve_numbers(want)[0] < 0.9
    assert np.abs(got.precision - want.precision).max() <= 1e-9  # so each class's figures are
    assert np.abs(got.recall - want.recall).max() <= 1e-9
    assert (got.precision[:, :, 3] == -1).all()
    assert (got.recall[:, 5, 0] == 0).all()


@pytest.mark.parametrize("max_dets", [11, 300])
def test_limit_on_detections(backend, max_dets):
    annotations, detections = synthetic_data(10, 60, 2, boxes_per_image=4.0)
    want = plain_curves(annotations, detections, 2, num_images=10, max_dets=max_dets)
    got = coco_curves(annotations, detections, 2, max_dets, backend)
    assert np.abs(got.precision - want.precision).max() <= 1e-9
    assert np.abs(got.recall - want.recall).max() <= 1e-9


def test_without_detections_or_boxes(backend):
    annotations, detections = synthetic_data(5, 10, 2)
    none = DetectionArrays.joined([])
    want = plain_curves(annotations, none, 2, num_images=5)
    got = coco_curves(annotations, none, 2, backend=backend)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
    assert all((x == -1).all() for x in coco_curves([], detections, 2, backend=backend))


def test_a_forked_process_does_not_wait_for_lost_threads():
    pytest.importorskip("hotcoco")
    annotations, detections = synthetic_data(5, 10, 2)
    here = coco_curves(annotations, detections, 2, backend="hotcoco")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply_async(coco_curves, (annotations, detections, 2, 100, "hotcoco"))
        found = there.get(timeout=60)
    assert all(np.abs(a - b).max() <= 1e-9 for a, b in zip(here, found, strict=True))


def test_unknown_backend():
    with pytest.raises(ValueError, match="pycocotools"):
        coco_curves([], DetectionArrays.joined([]), 1, backend="lvis")


def test_the_fast_one_is_the_default(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert default_backend() == "pycocotools"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert default_backend() == "hotcoco"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "hotcoco" or None)
    assert default_backend() == "faster-coco-eval"


def test_evaluator_reports_the_twelve_numbers(backend, tmp_path):
    """From instances, through arrays, to the results and the file of all detections."""
    annotations, detections = synthetic_data(8, 20, CLASSES, boxes_per_image=4.0)
    ids = [70 + 3 * i for i in range(8)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 600, "height": 600} for i in ids],
        "categories": [{"id": 10 * k + 1, "name": f"c{k}"} for k in range(CLASSES)],
        "annotations": [
            {
                **a,
                "id": n,
                "image_id": ids[a["image_id"]],
                "category_id": 10 * a["category_id"] + 1,
            }
            for n, a in enumerate(annotations)
        ],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    name = f"coco_ap_test_{backend}"
    register_coco_json(name, tmp_path / "gt.json", tmp_path)
    evaluator = CocoEvaluator(name, output_dir=tmp_path / "out", backend=backend)
    corners = detections.boxes.copy()
    corners[:, 2:] += corners[:, :2]
    for image, image_id in enumerate(ids):
        rows = detections.images == image
        found = Instances((600, 600))
        found.pred_boxes = Boxes(torch.from_numpy(corners[rows]))
        found.scores = torch.from_numpy(detections.scores[rows])
        found.pred_classes = torch.from_numpy(detections.classes[rows])
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    results = evaluator.evaluate()["bbox"]
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    names += ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    want = twelve_numbers(plain_curves(annotations, detections, CLASSES, num_images=8))
    assert [results[n] for n in names] == pytest.approx([100 * x for x in want], abs=0.01)

    stored = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert len(stored) == len(detections.scores)
    assert [d["image_id"] for d in stored[:20]] == [ids[0]] * 20
    assert stored[25]["category_id"] == 10 * int(detections.classes[25]) + 1
    assert stored[25]["bbox"] == pytest.approx(detections.boxes[25].tolist(), abs=1e-3)


def test_memory(backend):
    """Only one class's detections are Python objects at a time."""
    annotations, detections = synthetic_data(10, 100, 20)

    def peak(call) -> int:
        call()  # whatever is imported
        tracemalloc.start()
        call()
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    ours = peak(lambda: coco_curves(annotations, detections, 20, backend=backend))
    plain = peak(lambda: plain_curves(annotations, detections, 20, num_images=10))
    assert plain > 2 * ours
