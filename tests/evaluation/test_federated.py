"""LVIS's rules in four cases made by hand, and against its authors' program."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from vfnet_yolof.cli.main import main
from vfnet_yolof.evaluation import coco_ap
from vfnet_yolof.evaluation.coco_ap import DetectionArrays
from vfnet_yolof.evaluation.federated import is_federated, lvis_figures

BOX, FAR = [10.0, 10.0, 50.0, 50.0], [200.0, 200.0, 50.0, 50.0]
Found = tuple[int, int, list[float], float]


def image(number: int, searched: list[int], in_part: list[int]) -> dict:
    return {
        "id": number,
        "width": 400,
        "height": 400,
        "file_name": f"{number}.jpg",
        "neg_category_ids": searched,
        "not_exhaustive_category_ids": in_part,
        "coco_url": "",
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Class 1 in images 1 and 2, in 2 not all of it; 2 in image 2, and not in 1; 3 in image 3."""
    boxes = [(1, 1), (2, 2), (2, 1), (3, 3)]
    content = {
        "images": [image(1, [2], []), image(2, [], [1]), image(3, [], [])],
        "categories": [{"id": k, "name": f"c{k}", "frequency": f} for k, f in enumerate("fcr", 1)],
        "annotations": [
            {
                "id": n,
                "image_id": i,
                "category_id": k,
                "bbox": BOX,
                "area": 2500.0,
                "iscrowd": 0,
                "segmentation": [[10, 10, 60, 10, 60, 60]],
            }
            for n, (i, k) in enumerate(boxes, 1)
        ],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(content))
    return path


def figures(file: Path, found: list[Found]) -> dict[str, float]:
    images, classes, boxes, scores = (np.array(x) for x in zip(*found, strict=True))
    return lvis_figures(
        file, DetectionArrays(images - 1, classes - 1, boxes, scores), [1, 2, 3], [1, 2, 3]
    )


CASES: list[tuple[list[Found], str, float]] = [
    # image 1 was not searched for class 3: the better detection there does not count
    ([(1, 3, FAR, 0.99), (3, 3, BOX, 0.5)], "APr", 100.0),
    # it was searched for class 2, of which there is none
    ([(1, 2, FAR, 0.99), (2, 2, BOX, 0.5)], "APc", 50.0),
    # in image 2 not every object of class 1 was marked
    ([(2, 1, FAR, 0.99), (2, 1, BOX, 0.8), (1, 1, BOX, 0.5)], "APf", 100.0),
    ([(1, 1, FAR, 0.99), (2, 1, BOX, 0.8), (1, 1, BOX, 0.5)], "APf", 200 / 3),
]


@pytest.mark.parametrize(("found", "name", "value"), CASES)
def test_by_hand(file: Path, found: list[Found], name: str, value: float) -> None:
    pytest.importorskip("hotcoco")
    assert is_federated(file)
    assert figures(file, found)[name] == pytest.approx(value)


def test_the_report_has_both(file: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("hotcoco")
    results = tmp_path / "results.json"
    found = [
        {"image_id": i, "category_id": k, "bbox": box, "score": score}
        for i, k, box, score in CASES[0][0]
    ]
    results.write_text(json.dumps(found))
    files = ["--results", str(results), "--annotations", str(file)]
    assert main(["report", *files, "--output", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "searched for some classes only" in said and "APr 100.0" in said
    content = json.loads((tmp_path / "a" / "report.json").read_text())
    by_class = {row["class"]: row["AP"] for row in content["classes"]}
    assert (content["lvis"]["APr"], by_class["c3"]) == (pytest.approx(100), pytest.approx(50))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["report", *files, "--output", str(tmp_path / "b")]) == 0
    assert "pip install hotcoco" in capsys.readouterr().out


def test_equal_to_lvis(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hotcoco")
    lvis = pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # which numpy had when it was written
    found = [row for case in CASES for row in case[0]]
    rows = [
        {"image_id": i, "category_id": k, "bbox": box, "score": score} for i, k, box, score in found
    ]
    truth = lvis.LVIS(str(file))
    theirs = lvis.LVISEval(truth, lvis.LVISResults(truth, rows), "bbox")
    theirs.run()
    for name, value in figures(file, found).items():
        want = 100 * theirs.results[name]
        assert value == pytest.approx(want, abs=1e-9) or (np.isnan(value) and want == -100)


def test_a_forked_process_knows_that_it_would_wait(file: Path, monkeypatch) -> None:
    """hotcoco's threads stay with the process that first used it, here for these figures."""
    monkeypatch.setattr(coco_ap, "_used_in", None)
    assert coco_ap.can_use_hotcoco()
    figures(file, [(1, 1, BOX, 0.9)])
    assert coco_ap.can_use_hotcoco()
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    assert not coco_ap.can_use_hotcoco()


def test_ids_that_are_text(file: Path) -> None:
    pytest.importorskip("hotcoco")
    with pytest.raises(ValueError, match=r"lvis\.json: LVIS's rules need ids"):
        lvis_figures(file, DetectionArrays.joined([]), ["a"], [1])
