"""Records of functions that others registered: checked as annotation files are."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from vfnet_yolof.data import get_dataset_dicts
from vfnet_yolof.evaluation import CocoEvaluator

_numbers = itertools.count()


def registered(record: dict) -> str:
    """A data set of one class, given by a function."""
    name = f"function_{next(_numbers)}"
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(thing_classes=["cat"])
    return name


def record_with(found: dict, **other) -> dict:
    return {
        "file_name": "a.png",
        "image_id": 5,
        "width": 64,
        "height": 48,
        "annotations": [
            {"bbox": [1, 2, 21, 32], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, **found}
        ],
        **other,
    }


def test_numpy_numbers_in_records_are_numbers(tmp_path):
    name = f"numpy_{next(_numbers)}"
    found = {
        "bbox": np.array([1, 2, 3, 4], np.float32),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": np.int64(0),
        "iscrowd": np.int64(0),
    }
    size = {"width": np.int32(9), "height": np.int32(9)}
    record = {"file_name": "a.png", "image_id": np.int64(5), **size, "annotations": [found]}
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(thing_classes=["cat"])
    evaluator = CocoEvaluator(name, output_dir=tmp_path)
    assert json.dumps(evaluator._known_ids) == "[5]"
    assert evaluator._truth[0]["bbox"] == [1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 1}, r"no class of the model \(0 to 0\): 1 of image 5"),
        ({"category_id": -1}, "-1 of image 5"),
        ({"category_id": None}, "None of image 5"),
        ({"bbox": [0, 0, float("nan"), 1]}, "nan.* of image 5"),
        ({"bbox": [0, 0, 1]}, "of image 5"),
        ({"bbox_mode": None}, "of image 5"),
    ],
)
def test_registered_records_are_checked(change, message):
    name = f"checked_{next(_numbers)}"
    found = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, **change}
    record = {"file_name": "a.png", "image_id": 5, "width": 9, "height": 9, "annotations": [found]}
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(thing_classes=["cat"])
    with pytest.raises(ValueError, match=f"(?s){name}.*{message}"):
        get_dataset_dicts(name)


@pytest.mark.parametrize(
    ("found", "other", "message"),
    [
        ({"iscrowd": "yes"}, {}, "neither true nor false: yes of image 5"),
        ({"area": "400"}, {}, "'area' that is no number of at least 0: 400 of image 5"),
        ({"area": float("nan")}, {}, "nan of image 5"),
        ({"area": -3}, {}, "-3 of image 5"),
        ({"bbox": [21, 2, 1, 32]}, {}, r"negative width or height: \[21, 2, 1, 32\] of image 5"),
        ({"bbox": [70, 2, 90, 32]}, {}, "entirely outside its image: .* of image 5"),
        ({"bbox": [0, 0, 1e300, 1e300]}, {}, "too large for a number: .* of image 5"),
        ({"bbox": [True, 2, 21, 32]}, {}, "not finite numbers .* of image 5"),
        ({"bbox": [0, 0, 0.5, 0.5], "bbox_mode": BoxMode.XYXY_REL}, {}, "of pixels .* of image 5"),
        ({}, {"width": "64"}, "no whole number above 0: width 64 of image 5"),
        ({}, {"height": 0}, "no whole number above 0: height 0 of image 5"),
        ({}, {"image_id": [5]}, "neither a whole number nor text: record 0"),
        ({}, {"annotations": {"bbox": 1}}, "no list of mappings: of image 5"),
        ({}, {"annotations": [3]}, "no list of mappings: of image 5"),
    ],
)
def test_records_that_cannot_be_used_are_refused_in_training_and_evaluation(found, other, message):
    name = registered(record_with(found, **other))
    for use in (get_dataset_dicts, CocoEvaluator):
        with pytest.raises(ValueError, match=f"(?s){name}.*{message}"):
            use(name)


@pytest.mark.parametrize(
    ("flag", "crowd"), [("0", 0), ("true", 1), (None, 0), (True, 1), (np.bool_(True), 1)]
)
def test_flags_of_records(flag, crowd):
    name = registered(record_with({"iscrowd": flag}))
    assert [a["iscrowd"] for r in get_dataset_dicts(name) for a in r["annotations"]] == [crowd]
    assert [a["iscrowd"] for a in CocoEvaluator(name)._truth] == [crowd]


@pytest.mark.parametrize(
    "outline", [[[]], [[1, 2, 21, 32]], [1, 2, 21, 2, 21, 32], {"counts": "abc"}, {}, "none"]
)
def test_no_outline_of_a_record_ends_an_evaluation(outline):
    name = registered(record_with({"segmentation": outline}))
    assert CocoEvaluator(name)._truth[0]["area"] == 20 * 30


def test_rotated_boxes_of_records_are_the_upright_ones_around_them():
    box = {"bbox": [32, 24, 20, 10, 90], "bbox_mode": BoxMode.XYWHA_ABS}
    name = registered(record_with(box))
    expected = pytest.approx([27, 14, 37, 34], abs=1e-4)
    found = get_dataset_dicts(name)[0]["annotations"][0]
    assert (found["bbox_mode"], found["bbox"]) == (BoxMode.XYXY_ABS, expected)
    assert CocoEvaluator(name)._truth[0]["bbox"] == pytest.approx([27, 14, 10, 20], abs=1e-4)


def test_records_may_lack_their_size():
    name = registered(record_with({}, width=None, height=None))
    assert not {"width", "height"} & get_dataset_dicts(name)[0].keys()


def test_records_whose_annotations_are_none_are_a_test_set(tmp_path):
    name = registered(record_with({}, annotations=None))
    assert "annotations" not in get_dataset_dicts(name)[0]
    assert not CocoEvaluator(name, output_dir=tmp_path).has_ground_truth


def test_what_a_registered_function_lacks_is_named():
    nameless, empty = (f"lacking_{next(_numbers)}" for _ in range(2))
    DatasetCatalog.register(nameless, lambda: [record_with({})])
    with pytest.raises(ValueError, match=rf"'{nameless}' has no class names.*thing_classes="):
        get_dataset_dicts(nameless)
    DatasetCatalog.register(empty, list)
    with pytest.raises(ValueError, match="no image is left.$"):
        get_dataset_dicts(empty, filter_empty=True)
