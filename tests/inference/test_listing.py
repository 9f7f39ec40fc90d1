"""What is listed as JSON: the detections, under the data set's own ids."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from demo_inputs import CONFIG, NAMES, write_picture
from detectron2.data import MetadataCatalog
from vfnet_yolof import Predictor
from vfnet_yolof.inference.demo import category_ids, collect_inputs, run_on_files


def test_records_are_the_predictors_detections(predictor: Predictor, tmp_path: Path):
    path = write_picture(tmp_path / "a.png")
    result = run_on_files(predictor, collect_inputs([path]), tmp_path / "out")
    expected = predictor(path)
    assert not result.failures
    assert len(result.records) == len(expected) > 0
    boxes = torch.tensor([r["bbox"] for r in result.records])
    boxes[:, 2:] += boxes[:, :2]
    assert torch.allclose(boxes, expected.pred_boxes.tensor, atol=0.01)
    assert [r["category_id"] for r in result.records] == expected.pred_classes.tolist()


@pytest.fixture
def data_set() -> Iterator[str]:
    """Name of a data set in which a has the category id 90 and b 17."""
    metadata = MetadataCatalog.get("demo_test_set")
    metadata.thing_classes = ["a", "b"]
    metadata.thing_dataset_id_to_contiguous_id = {17: 1, 90: 0}
    yield "demo_test_set"
    MetadataCatalog.remove("demo_test_set")


@pytest.mark.parametrize(
    ("names", "trained_on", "ids"),
    [
        (["a", "b"], None, [90, 17]),
        (["b", "a"], None, [17, 90]),
        (["b", "a"], [1, 2], [17, 90]),
        (["a", "c"], None, [0, 1]),
        (["a", "c"], [5, 7], [5, 7]),
        (["b"], [3], [3]),
        (["a", "a"], None, [0, 1]),
    ],
)
def test_category_ids_follow_names(data_set: str, names, trained_on, ids):
    assert category_ids(names, data_set, trained_on) == ids


def test_category_ids_without_a_data_set():
    assert category_ids(["a", "b"], None) == [0, 1]
    assert category_ids(["a", "b"], "no such data set", [4, 2]) == [4, 2]


def test_records_have_the_ids_that_the_model_was_trained_on(weights, tmp_path: Path):
    content = torch.load(weights, weights_only=True)
    path = tmp_path / "own.pth"
    torch.save({**content, "category_ids": [11, 22, 33, 44, 55, 66]}, path)
    predictor = Predictor(CONFIG, path, device="cpu", score_thresh=0.1)
    result = run_on_files(
        predictor, collect_inputs([write_picture(tmp_path / "a.png")]), tmp_path / "out"
    )
    assert result.records
    for record in result.records:
        assert record["category_id"] == 11 * (NAMES.index(record["category_name"]) + 1)
