from __future__ import annotations

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from vfnet_yolof.data import (
    dataset_class_names,
    get_dataset_dicts,
    register_coco_json,
    register_user_datasets,
    validate_coco,
)


def test_user_data_of_two_splits(write_coco):
    train, images = write_coco("train")
    val, _ = write_coco("val")
    data = register_user_datasets(train, images, val, images)
    assert (data.class_names, data.num_classes) == (["cat", "dog"], 2)
    assert data.train_name != data.val_name
    records = get_dataset_dicts(data.train_name)
    # ids 3 and 7 of the file are classes 0 and 1 of the model
    assert [r["annotations"][0]["category_id"] for r in records] == [0, 1]
    assert MetadataCatalog.get(data.val_name).thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    assert dataset_class_names(data.val_name) == ["cat", "dog"]
    assert register_user_datasets(train, images, val, images) == data


def test_one_split_alone_and_a_file_that_changed(write_coco):
    json_file, images = write_coco()
    first = register_user_datasets(None, None, json_file, images)
    assert first.train_name is None
    write_coco(categories=[{"id": 3, "name": "cat"}, {"id": 7, "name": "fox"}])
    second = register_user_datasets(None, None, json_file, images)
    assert second.val_name != first.val_name
    assert second.class_names == ["cat", "fox"]


def test_splits_must_have_the_same_category_names(write_coco):
    train, images = write_coco("train")
    val, _ = write_coco("val", categories=[{"id": 3, "name": "cat"}, {"id": 7, "name": "fox"}])
    with pytest.raises(
        ValueError, match=r"only .*train\.json has 'dog'; only .*val\.json has 'fox'"
    ):
        register_user_datasets(train, images, val, images)


def test_splits_may_number_their_categories_otherwise(write_coco):
    """Evaluation goes by the names."""
    train, images = write_coco("train")
    val, _ = write_coco("val", categories=[{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}])
    data = register_user_datasets(train, images, val, images)
    assert data.class_names == ["cat", "dog"]
    assert dataset_class_names(data.val_name) == ["dog", "cat"]


def test_arguments_that_do_not_fit(write_coco, tmp_path):
    json_file, images = write_coco()
    with pytest.raises(ValueError, match="--train-images is missing"):
        register_user_datasets(json_file, None, None, None)
    with pytest.raises(ValueError, match="--train-json"):
        register_user_datasets(None, None, None, None)
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        register_user_datasets(str(tmp_path / "absent.json"), images, None, None)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        register_user_datasets(json_file, str(tmp_path / "nowhere"), None, None)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not valid JSON"):
        register_user_datasets(str(tmp_path / "bad.json"), images, None, None)
    for parts, message in (
        ({"categories": None}, "'categories' is missing"),
        ({"categories": [{"id": 1}]}, "entry 0 lacks 'name'"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "category id used twice: 1",
        ),
    ):
        wrong, _ = write_coco("wrong", **parts)
        with pytest.raises(ValueError, match=rf"(?s)wrong\.json.*{message}"):
            register_user_datasets(wrong, images, None, None)


def test_a_name_stands_for_one_file(write_coco):
    json_file, images = write_coco("one")
    other, _ = write_coco("other")
    assert register_coco_json("datasets_test_name", json_file, images) == {3: "cat", 7: "dog"}
    register_coco_json("datasets_test_name", json_file, images)
    with pytest.raises(ValueError, match=r"'datasets_test_name' is taken by .*one\.json"):
        register_coco_json("datasets_test_name", other, images)


def test_unknown_and_missing_data_sets(tmp_path):
    with pytest.raises(KeyError, match=r"'shapes_trian'.*Did you mean shapes_train.*--train-json"):
        get_dataset_dicts("shapes_trian")
    name = "datasets_test_missing"
    register_coco_instances(name, {}, str(tmp_path / "gone.json"), str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"gone\.json.*DETECTRON2_DATASETS"):
        get_dataset_dicts(name)
    with pytest.raises(ValueError, match="No data set"):
        get_dataset_dicts([])


def test_empty_images_stay_unless_filtered(write_coco):
    one_box = [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 10], "iscrowd": 0}]
    json_file, images = write_coco(annotations=one_box)
    name = register_user_datasets(json_file, images, None, None).train_name
    assert [r["image_id"] for r in get_dataset_dicts(name)] == [1, 2]
    assert [r["image_id"] for r in get_dataset_dicts(name, filter_empty=True)] == [1]
    assert len(get_dataset_dicts([name, name])) == 4


def test_image_information_without_annotations(write_coco):
    json_file, images = write_coco("image_info_test-dev", annotations=None)
    name = register_user_datasets(None, None, json_file, images).val_name
    records = get_dataset_dicts(name)
    assert [r["image_id"] for r in records] == [1, 2]
    assert not any(r.get("annotations") for r in records)
    with pytest.raises(ValueError, match="filter_empty=False"):
        get_dataset_dicts(name, filter_empty=True)


def test_data_sets_with_other_classes_are_not_mixed(write_coco):
    one, images = write_coco("one")
    two, _ = write_coco("two", categories=[{"id": 3, "name": "cat"}, {"id": 7, "name": "cow"}])
    names = [register_user_datasets(f, images, None, None).train_name for f in (one, two)]
    with pytest.raises(ValueError, match="Cannot use data sets with different classes"):
        get_dataset_dicts(names)


@pytest.mark.parametrize(
    ("annotations", "images", "classes"),
    [
        ("coco_tiny/annotations/instances_{}2017.json", "coco_tiny/{}2017", 80),
        ("bccd/{}.json", "bccd/images", 3),
    ],
)
def test_real_data(shared_dir, annotations, images, classes):
    root = shared_dir / "data"
    if not root.is_dir():
        pytest.skip(f"needs the real data sets: no folder {root}")
    files = [str(root / part.format(s)) for s in ("train", "val") for part in (annotations, images)]
    data = register_user_datasets(*files)
    assert data.num_classes == classes
    assert validate_coco(files[0], files[1]).ok
    assert validate_coco(files[2], files[3]).ok
    records = get_dataset_dicts(data.train_name)
    assert len(records) == len(
        json.loads((root / annotations.format("train")).read_text())["images"]
    )
    used = {a["category_id"] for r in records for a in r["annotations"]}
    assert max(used) == classes - 1
    assert data.train_name in DatasetCatalog
