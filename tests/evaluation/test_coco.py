from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.structures import Boxes, BoxMode, Instances
from distributed_worker import together
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from vfnet_yolof.data import get_dataset_dicts, register_coco_json, register_user_datasets
from vfnet_yolof.evaluation import CocoEvaluator

SIZE = 200  # px, both sides of every image
_number = itertools.count()

Box = tuple[float, float, float, float]  # xyxy


def gt(image_id: int, category_id: int, box: Box, **other: Any) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
    } | other


@pytest.fixture
def register(tmp_path: Path) -> Callable[..., str]:
    """Registers a data set of `num_images` images; categories 2, 5 and 9 with gaps as in COCO."""

    def make(annotations: list[dict] | None, num_images: int = 2) -> str:
        names = {2: "cat", 5: "dog", 9: "emu"}
        content: dict[str, Any] = {
            "images": [
                {"id": i + 1, "file_name": f"{i}.png", "width": SIZE, "height": SIZE}
                for i in range(num_images)
            ],
            "categories": [{"id": i, "name": n} for i, n in names.items()],
        }
        if annotations is not None:
            content["annotations"] = [{"id": i + 1, **a} for i, a in enumerate(annotations)]
        path = tmp_path / "gt.json"
        path.write_text(json.dumps(content))
        name = f"evaluation_test_{next(_number)}"
        register_coco_json(name, path, tmp_path)
        return name

    return make


def instances(detections: list[tuple[int, float, Box]]) -> Instances:
    """detections: (class id of the model, score, box)."""
    made = Instances((SIZE, SIZE))
    made.pred_boxes = Boxes(torch.tensor([d[2] for d in detections]).reshape(-1, 4))
    made.scores = torch.tensor([d[1] for d in detections])
    made.pred_classes = torch.tensor([d[0] for d in detections], dtype=torch.int64)
    return made


def evaluate(evaluator: CocoEvaluator, *per_image: list[tuple[int, float, Box]]) -> dict:
    evaluator.reset()
    for i, detections in enumerate(per_image):
        evaluator.process([{"image_id": i + 1}], [{"instances": instances(detections)}])
    return evaluator.evaluate()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    caplog.set_level(logging.INFO, logger="detectron2")
    return caplog


A, B = (10.0, 10.0, 60.0, 60.0), (100.0, 100.0, 150.0, 150.0)


def test_ap_by_hand(register):
    """Right, wrong, right: precision 1 up to recall 1/2 (51 of 101 points), 2/3 beyond."""
    evaluator = CocoEvaluator(register([gt(1, 2, A), gt(2, 2, A)]))
    assert isinstance(evaluator, DatasetEvaluator)
    results = evaluate(evaluator, [(0, 0.9, A), (0, 0.8, B)], [(0, 0.7, A)])["bbox"]
    want = 100 * (51 + 50 * 2 / 3) / 101
    for key in ("AP", "AP50", "AP75", "APm", "AP-cat", "AP50-cat"):
        assert results[key] == pytest.approx(want), key
    for key in ("APs", "APl", "AP-dog", "AP50-emu"):
        assert math.isnan(results[key]), key


def test_overlap_thresholds(register):
    """An overlap of 0.72 counts at 0.50, 0.55, 0.60, 0.65 and 0.70 of the ten thresholds."""
    evaluator = CocoEvaluator(register([gt(1, 2, (0, 0, 100, 100))]))
    results = evaluate(evaluator, [(0, 0.9, (0, 0, 100, 72))], [])["bbox"]
    got = [results[k] for k in ("AP", "AP50", "AP75", "APl")]
    assert got == pytest.approx([50.0, 100.0, 0.0, 50.0])


def test_equals_pycocotools(register, tmp_path):
    rng = np.random.default_rng(0)

    def boxes(count: int) -> list[Box]:
        corner, side = rng.uniform(0, 80, (count, 2)), rng.uniform(10, 118, (count, 2))
        return [tuple(b) for b in np.concatenate([corner, corner + side], axis=1).tolist()]

    annotations, found = [], []
    for image in range(1, 13):
        for box in boxes(int(rng.integers(0, 6))):
            category = int(rng.choice([2, 5, 9]))
            crowd = int(rng.random() < 0.1)
            annotations.append(gt(image, category, box, iscrowd=crowd))
            near = tuple(np.array(box) + rng.normal(0, 4, 4))
            found.append((image, {2: 0, 5: 1, 9: 2}[category], float(rng.random()), near))
        found += [(image, int(rng.integers(3)), float(rng.random()), b) for b in boxes(3)]
    name = register(annotations, num_images=12)
    evaluator = CocoEvaluator(name, output_dir=tmp_path / "out")
    per_image = [[f[1:] for f in found if f[0] == i] for i in range(1, 13)]
    results = evaluate(evaluator, *per_image)["bbox"]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(MetadataCatalog.get(name).json_file)
        truth.dataset["info"] = {}
        for a in truth.dataset["annotations"]:
            a["area"] = a["bbox"][2] * a["bbox"][3]
        reference = COCOeval(
            truth, truth.loadRes(str(tmp_path / "out" / "coco_instances_results.json")), "bbox"
        )
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    keys = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    want = [100 * x if x >= 0 else float("nan") for x in reference.stats[:6]]
    assert 5 < want[0] < 95
    assert [results[k] for k in keys] == pytest.approx(want, nan_ok=True)
    for k, label in enumerate(("cat", "dog", "emu")):
        curve = reference.eval["precision"][:, :, k, 0, -1]
        assert results[f"AP-{label}"] == pytest.approx(100 * curve.mean())
        assert results[f"AP50-{label}"] == pytest.approx(100 * curve[0].mean())


def test_files_and_log(register, tmp_path, log):
    evaluator = CocoEvaluator(register([gt(1, 2, A), gt(2, 9, B)]), output_dir=tmp_path / "o")
    evaluate(evaluator, [(0, 0.5, A), (2, 0.4, B)], [])
    out = tmp_path / "o"
    stored = json.loads((out / "coco_instances_results.json").read_text())
    assert stored[1] == {
        "image_id": 1,
        "category_id": 9,
        "bbox": [100.0, 100.0, 50.0, 50.0],
        "score": pytest.approx(0.4),
    }
    with (out / "per_class.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["cat", "dog", "emu"]
    assert rows["cat"] == {
        "category_id": "2",
        "class": "cat",
        "boxes": "1",
        "detections": "1",
        "AP": "100.000",
        "AP50": "100.000",
    }
    assert (rows["emu"]["AP"], rows["dog"]["AP"]) == ("0.000", "nan")
    metrics = json.loads((out / "metrics.json").read_text())["bbox"]
    assert metrics["AP"] == pytest.approx(50.0)
    assert metrics["APs"] is None
    assert "APs is nan: no ground truth in this area range" in log.text
    assert "APm is nan" not in log.text
    assert "has no box of dog" in log.text
    assert sorted(p.name for p in out.iterdir()) == [
        "coco_instances_results.json",
        "metrics.json",
        "per_class.csv",
    ]


def test_no_detection_is_zero_not_nan(register, log):
    results = evaluate(CocoEvaluator(register([gt(1, 2, A)])), [], [])["bbox"]
    assert results["AP"] == results["AP50"] == results["APm"] == results["AP-cat"] == 0.0
    assert math.isnan(results["AP-dog"])
    assert "detected nothing in 2 images" in log.text


def test_crowds_are_ignored(register):
    """A detection inside a crowd region is neither right nor wrong."""
    name = register([gt(1, 2, A, iscrowd=0), gt(1, 2, B, iscrowd=1)])
    inside_crowd = (110.0, 110.0, 120.0, 120.0)
    detections = [(0, 0.9, inside_crowd), (0, 0.8, A)]
    assert evaluate(CocoEvaluator(name), detections, [])["bbox"]["AP"] == pytest.approx(100)


def test_limit_on_detections(register):
    wrong = [(0, 0.9 - 0.001 * i, B) for i in range(100)]
    name = register([gt(1, 2, A)])
    detections = [*wrong, (0, 0.1, A)]
    assert evaluate(CocoEvaluator(name), detections, [])["bbox"]["AP"] == 0
    more = CocoEvaluator(name, max_dets_per_image=101)
    assert evaluate(more, detections, [])["bbox"]["AP"] == pytest.approx(100 / 101)


@pytest.mark.parametrize("annotations", [None, []])
def test_data_without_annotations_gives_a_submission(register, tmp_path, log, annotations):
    name = register(annotations)
    evaluator = CocoEvaluator(name, output_dir=tmp_path / "dev")
    assert evaluate(evaluator, [(1, 0.5, A)], []) == {}
    path = tmp_path / "dev" / "coco_instances_results.json"
    assert [d["category_id"] for d in json.loads(path.read_text())] == [5]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert str(path) in log.text
    assert "nothing is evaluated" in log.text
    with pytest.raises(ValueError, match="output_dir"):
        CocoEvaluator(name)


def test_mistakes_are_explained(register, log):
    name = register([gt(1, 2, A)])
    evaluator = CocoEvaluator([name])
    with pytest.raises(ValueError, match=r"predicts class 3.*3 classes \(0 to 2\).*num_classes"):
        evaluate(evaluator, [(3, 0.5, A)], [])
    with pytest.raises(ValueError, match="id 3"):
        evaluate(evaluator, [], [], [])
    evaluate(evaluator, [(0, 0.5, A)])
    assert "Only 1 of the 2 images" in log.text
    with pytest.raises(ValueError, match="one data set"):
        CocoEvaluator([name, name])
    with pytest.raises(KeyError, match="evaluation_test_x"):
        CocoEvaluator("evaluation_test_x")


def test_data_set_that_is_not_in_coco_format(tmp_path):
    name = f"evaluation_test_{next(_number)}"
    box = {"bbox": [10, 10, 60, 60], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    record = {"file_name": "a.png", "image_id": 1, "width": SIZE, "height": SIZE}
    DatasetCatalog.register(name, lambda: [{**record, "annotations": [box]}])
    MetadataCatalog.get(name).set(thing_classes=["cat"])
    for output_dir in (None, tmp_path):
        evaluator = CocoEvaluator(name, output_dir=output_dir)
        assert evaluate(evaluator, [(0, 0.9, A)])["bbox"]["AP-cat"] == pytest.approx(100)


def run_rank(rank: int, folder: Path, name: str) -> None:
    with together(folder, rank, 2):
        evaluator = CocoEvaluator(name, output_dir=folder / "out")
        evaluator.reset()
        found = [(0, 0.9, A), (0, 0.8, B)] if rank == 0 else [(0, 0.7, A)]
        evaluator.process([{"image_id": rank + 1}], [{"instances": instances(found)}])
        (folder / f"rank{rank}.json").write_text(json.dumps(evaluator.evaluate()))


def test_ranks_are_gathered(register, tmp_path):
    name = register([gt(1, 2, A), gt(2, 2, A)])
    torch.multiprocessing.start_processes(
        run_rank, args=(tmp_path, name), nprocs=2, start_method="fork"
    )
    main, other = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    assert main["bbox"]["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert other == {}


def test_perfect_detections_on_real_data(shared_dir):
    """COCO's own categories have gaps: every ground truth box, found, makes 100."""
    root = shared_dir / "data" / "coco_tiny"
    if not root.is_dir():
        pytest.skip(f"needs the real data: no folder {root}")
    json_file = str(root / "annotations" / "instances_val2017.json")
    name = register_user_datasets(None, None, json_file, str(root / "val2017")).val_name
    records = get_dataset_dicts(name)

    def answer(batch: list[dict]) -> list[dict]:
        outputs = []
        for record in batch:
            kept = [a for a in record["annotations"] if not a["iscrowd"]]
            found = Instances((record["height"], record["width"]))
            xywh = torch.tensor([a["bbox"] for a in kept]).reshape(-1, 4)
            found.pred_boxes = Boxes(BoxMode.convert(xywh, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
            found.scores = torch.ones(len(kept))
            found.pred_classes = torch.tensor([a["category_id"] for a in kept])
            outputs.append({"instances": found})
        return outputs

    results = inference_on_dataset(answer, [[r] for r in records], CocoEvaluator(name))["bbox"]
    assert results["AP"] == pytest.approx(100)
    assert len([k for k in results if k.startswith("AP50-")]) == 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(max_dets_per_image=0), "whole number of at least 1, got 0"),
        (dict(max_dets_per_image=-1), "whole number of at least 1, got -1"),
        (dict(max_dets_per_image=None), "whole number of at least 1, got None"),
        (dict(max_dets_per_image=2.5), "whole number of at least 1, got 2.5"),
        (dict(max_dets_per_image=True), "whole number of at least 1, got True"),
        (dict(backend="lvis"), "pycocotools.*got 'lvis'"),
    ],
)
def test_settings_are_refused_before_anything_is_run(register, options, message):
    name = register([gt(1, 2, A)])
    with pytest.raises(ValueError, match=message):
        CocoEvaluator(name, **options)


def test_a_backend_that_is_not_installed_is_refused(register, monkeypatch):
    import importlib.util

    name = register([gt(1, 2, A)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="'faster-coco-eval' is not installed.*'pycocotools'"):
        CocoEvaluator(name, backend="faster-coco-eval")


@pytest.mark.parametrize(
    ("limit", "keys"), [(1, ["AR1"]), (4, ["AR1", "AR4"]), (10, ["AR1", "AR10"])]
)
def test_recall_is_of_no_more_detections_than_the_limit(register, limit, keys):
    """Wrong ones first: the right one is the fifth."""
    wrong = [(0, 0.9 - 0.1 * i, B) for i in range(4)]
    evaluator = CocoEvaluator(register([gt(1, 2, A)]), max_dets_per_image=limit)
    results = evaluate(evaluator, [*wrong, (0, 0.1, A)], [])["bbox"]
    assert [k for k in results if k.startswith("AR") and k[2:].isdigit()] == keys
    assert results[keys[-1]] == results["ARm"] == (100 if limit == 10 else 0)
    assert results["AP"] == pytest.approx(20 if limit == 10 else 0)


def test_an_image_counts_once(register):
    """Twice the same detections would make half of them wrong."""
    evaluator = CocoEvaluator(register([gt(1, 2, A), gt(2, 2, A)]))
    output = {"instances": instances([(0, 0.9, A)])}
    evaluator.process([{"image_id": 1}], [output])
    with pytest.raises(ValueError, match="Image id 1 of .* twice.*reset()"):
        evaluator.process([{"image_id": 1}], [output])
    evaluator.reset()
    evaluator.process([{"image_id": 1}, {"image_id": 2}], [output, output])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    with pytest.raises(ValueError, match="Image id 2 of .* twice"):
        evaluator.process([{"image_id": 2}], [output])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused_by_entry(register, value):
    evaluator = CocoEvaluator(register([gt(1, 2, A)]))
    for wrong in ((0, value, B), (0, 0.5, (value, 0.0, 9.0, 9.0))):
        with pytest.raises(ValueError, match=r"Detection 1 of image id 2 has .*(nan|inf).*finite"):
            evaluator.process([{"image_id": 2}], [{"instances": instances([(0, 0.5, A), wrong])}])
    assert evaluate(evaluator, [(0, 0.5, A)], [])["bbox"]["AP"] == pytest.approx(100)


def test_a_class_below_0_is_refused(register):
    with pytest.raises(ValueError, match="class -1 in image id 1"):
        evaluate(CocoEvaluator(register([gt(1, 2, A)])), [(0, 0.5, A), (-1, 0.4, A)])


def test_an_annotation_with_id_0_can_be_found(register):
    """pycocotools, which marks "not found" by 0, would count it as missed."""
    annotation = gt(1, 2, A) | {"id": 0}
    results = evaluate(CocoEvaluator(register([annotation])), [(0, 0.9, A)], [])
    assert results["bbox"]["AP"] == pytest.approx(100)


def run_same_image(rank: int, folder: Path, name: str) -> None:
    with together(folder, rank, 2):
        evaluator = CocoEvaluator(name)
        evaluator.process([{"image_id": 1}], [{"instances": instances([(0, 0.9, A)])}])
        with pytest.raises(ValueError, match="Image id 1 of .* twice"):
            evaluator.evaluate()
        (folder / f"refused{rank}").touch()


def test_an_image_counts_once_among_ranks(register, tmp_path):
    """Every rank says so: none is left waiting for the others."""
    name = register([gt(1, 2, A)])
    torch.multiprocessing.start_processes(
        run_same_image, args=(tmp_path, name), nprocs=2, start_method="fork"
    )
    assert (tmp_path / "refused0").exists()
    assert (tmp_path / "refused1").exists()
