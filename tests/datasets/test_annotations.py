"""One reader of annotation files: what training takes, evaluation and validator take alike."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from vfnet_yolof.data import (
    DetectionMapper,
    get_dataset_dicts,
    register_user_datasets,
    validate_coco,
)
from vfnet_yolof.data.annotations import load_annotations, read_annotations
from vfnet_yolof.data.faults import shown
from vfnet_yolof.evaluation import CocoEvaluator

BOX = [5, 6, 20, 15]
_numbers = itertools.count()


def annotation(**other):
    return {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, **other}


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file about one picture, 64 x 48 px; keyword arguments replace its parts."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")

    def write(encoding: str = "utf-8", **parts):
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [annotation()],
            **parts,
        }
        path = tmp_path / f"data{next(_numbers)}.json"
        path.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
        return str(path), str(tmp_path)

    return write


def everywhere(files: tuple[str, str]):
    """Records, evaluator and report of a file: all three read it, or all three refuse it."""
    json_file, images = files
    report = validate_coco(json_file, images)

    def load():
        name = register_user_datasets(None, None, json_file, images).val_name
        return get_dataset_dicts(name), CocoEvaluator(name, output_dir=Path(images) / "out")

    if report.ok:
        return *load(), report
    with pytest.raises(ValueError, match=re.escape(json_file)):
        load()
    return None, None, report


OUTLINES = [
    *({"segmentation": x} for x in ([[]], [[5, 6, 25, 21]], [], None, "", 0)),
    *({"segmentation": x} for x in ([5, 6, 25, 6, 25, 21, 5, 21], {"polygon": [[1, 2, 3]]}, {})),
    *({"keypoints": x} for x in ({"nose": [1, 2]}, [1, 2], "none", None)),
    {"segmentation": {"counts": [], "size": "?"}, "attributes": {"occluded": True}},
]


@pytest.mark.parametrize("extra", OUTLINES)
def test_no_box_is_lost_for_its_outline(write, extra):
    records, evaluator, report = everywhere(write(annotations=[annotation(**extra)]))
    (found,) = records[0]["annotations"]
    assert BoxMode.convert(found["bbox"], found["bbox_mode"], BoxMode.XYXY_ABS) == [5, 6, 25, 21]
    assert [x["bbox"] for x in evaluator._truth] == [BOX]
    assert report.num_boxes == 1


@pytest.mark.parametrize(
    ("flag", "crowd"),
    [(0, 0), (1, 1), (True, 1), (False, 0), (None, 0), ("0", 0), ("1", 1), ("true", 1)],
)
def test_flags(write, flag, crowd):
    records, evaluator, report = everywhere(write(annotations=[annotation(iscrowd=flag)]))
    assert records[0]["annotations"][0]["iscrowd"] == crowd
    assert evaluator._truth[0]["iscrowd"] == crowd
    assert report.num_boxes == 1 - crowd


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        ([{"id": 1, "name": 0}, {"id": 2, "name": 1.5}], ["0", "1.5"]),
        ([{"id": "1", "name": "a"}, {"id": "2", "name": "b"}], ["a", "b"]),
        ([{"id": 2.0, "name": "b"}, {"id": 1.0, "name": "a"}], ["a", "b"]),
        ([{"id": 10, "name": "b"}, {"id": "1", "name": "a"}], ["a", "b"]),
    ],
)
def test_names_and_ids_of_other_types(write, categories, names):
    annotations = [annotation(category_id=categories[0]["id"])]
    files = write(categories=categories, annotations=annotations)
    records, evaluator, report = everywhere(files)
    assert evaluator.class_names == names == list(report.class_counts)
    assert names[records[0]["annotations"][0]["category_id"]] == str(categories[0]["name"])
    assert any("taken for" in note for note in report.notes)


@pytest.mark.parametrize(
    ("ids", "referred", "expected"),
    [
        ([1, 2, 3], [3, "2", 1.0], [1, 2, 3]),
        (["b", "a"], ["a", "b", "a"], ["a", "b"]),
        ([1, "2", 3, "x"], [2, "x", 3], [1, 3, "2", "x"]),
        ([2.0, 1], [1, 2, 2], [1, 2]),
    ],
)
def test_image_ids(write, ids, referred, expected):
    images = [{"id": i, "file_name": "a.png", "width": 64, "height": 48} for i in ids]
    annotations = [annotation(id=n, image_id=i) for n, i in enumerate(referred)]
    records, evaluator, _ = everywhere(write(images=images, annotations=annotations))
    assert [r["image_id"] for r in records] == evaluator._known_ids == expected
    assert sum(len(r["annotations"]) for r in records) == len(referred) == len(evaluator._truth)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_whatever_the_locale(write, encoding, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    names = ["café", "고양이", "猫 😀"]
    categories = [{"id": i + 1, "name": n} for i, n in enumerate(names)]
    _, evaluator, _ = everywhere(write(encoding, categories=categories))
    assert evaluator.class_names == names


BAD = [
    ({"categories": [{"id": [1], "name": "a"}]}, "unusable 'id': entry 0: [1]"),
    ({"categories": [{"id": True, "name": "a"}]}, "unusable 'id': entry 0: True"),
    ({"categories": [{"id": 1.5, "name": "a"}]}, "entry 0: 1.5"),
    ({"categories": [{"id": "one", "name": "a"}]}, "entry 0: one"),
    ({"categories": [{"id": 2**64, "name": "a"}]}, f"entry 0: {2**64}"),
    ({"categories": [{"id": 1, "name": None}]}, "unusable 'name': entry 0: None"),
    ({"categories": [{"id": 1, "name": ["a"]}]}, "unusable 'name': entry 0: ['a']"),
    ({"categories": [{"id": 1, "name": " "}]}, "unusable 'name'"),
    ({"categories": [{"id": 1, "name": "\ud800"}]}, "unusable 'name'"),
    ({"categories": [{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]}, "used twice: 1"),
    ({"categories": [{"id": 1, "name": 7}, {"id": 2, "name": "7"}]}, "name used twice: 7"),
    ({"categories": {"1": "a"}}, "'categories' is missing, empty or no list"),
    ({"categories": ["a"]}, "entry 0 lacks 'id' (a)"),
    ({"images": "none"}, "'images' is missing, empty or no list"),
    ({"images": [{"id": {}, "file_name": "a.png", "width": 9, "height": 9}]}, "(a.png): {}"),
    ({"images": [{"id": 1, "file_name": None, "width": 9, "height": 9}]}, "'file_name'"),
    ({"images": [{"id": 1, "file_name": "a\0b", "width": 9, "height": 9}]}, "'file_name'"),
    ({"images": [{"id": 1, "file_name": "a.png", "width": 9.5, "height": 9}]}, "(a.png): 9.5"),
    ({"annotations": {"a": 1}}, "'annotations' is no list"),
    ({"annotations": [[1]]}, "entry 0 is no object: [1]"),
    ({"annotations": [annotation(image_id=[1])]}, "[1] in annotation 1"),
    ({"annotations": [annotation(image_id=True)]}, "True in annotation 1"),
    ({"annotations": [annotation(category_id={})]}, "{} in annotation 1"),
    ({"annotations": [annotation(bbox=[2**2000, 0, 1, 1])]}, "not four numbers"),
    ({"annotations": [annotation(bbox=[2**64, 0, 1, 1])]}, "entirely outside"),
    ({"annotations": [annotation(bbox=["5", 6, 20, 15])]}, "not four numbers"),
    ({"annotations": [annotation(bbox={"x": 5})]}, "{'x': 5} in annotation 1"),
    ({"annotations": [annotation(bbox=[True, 0, 1, 1])]}, "not four numbers"),
    ({"annotations": [annotation(bbox=[0, 0, float("nan"), 1])]}, "NaN or infinity"),
    ({"annotations": [annotation(iscrowd=2)]}, "2 in annotation 1"),
    ({"annotations": [annotation(iscrowd="maybe")]}, "maybe in annotation 1"),
    ({"annotations": [annotation(area=-3)]}, "-3 in annotation 1"),
    ({"annotations": [annotation(area="big")]}, "big in annotation 1"),
    ({"annotations": [annotation(area=float("inf"))]}, "inf in annotation 1"),
    ({"annotations": [annotation(id=[1]), annotation(id=[1])]}, "annotation id used twice: [1]"),
]


@pytest.mark.parametrize(("parts", "message"), BAD)
def test_what_cannot_be_used_is_refused_everywhere_with_its_entry(write, tmp_path, parts, message):
    path = tmp_path / "bad.json"
    files = write()
    content = {**json.loads(Path(files[0]).read_text()), **parts}
    path.write_text(json.dumps(content))
    records, _, report = everywhere((str(path), str(tmp_path)))
    assert records is None
    assert message in report.format()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "expected a JSON object"),
        (b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"images": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b"\xff\xfe{\x00}\x00", "not valid JSON"),
    ],
)
def test_files_that_are_no_annotations(tmp_path, text, message):
    path = tmp_path / "data.json"
    path.write_bytes(text)
    records, _, report = everywhere((str(path), str(tmp_path)))
    assert records is None
    assert message in report.format()


def test_folders_and_pipes_are_no_annotations(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        _, _, report = everywhere((str(path), str(tmp_path)))
        assert str(path) in report.format()
        assert not report.ok


@pytest.mark.parametrize(
    ("boxes", "areas", "message"),
    [
        ([BOX], [90_000], "'area' larger than the box"),
        ([BOX], [0], "'area' of 0"),
        ([[1, 1, 4 + i, 5] for i in range(6)], [20] * 6, "all 'area' fields are equal"),
        ([[0.1, 0.2, 0.3, 0.3]] * 2, [None] * 2, "shares of the image"),
    ],
)
def test_numbers_that_cannot_be_right_are_warned_of(write, boxes, areas, message):
    annotations = [
        annotation(id=i, bbox=box, area=area)
        for i, (box, area) in enumerate(zip(boxes, areas, strict=True))
    ]
    _, _, report = everywhere(write(annotations=annotations))
    (warning,) = report.warnings
    assert message in warning.what
    assert "annotation 0 of image 1" in str(warning)


@pytest.mark.parametrize("area", [None, 300, 150, 300.4, 336])
def test_areas_of_outlines_are_no_fault(write, area):
    _, evaluator, report = everywhere(write(annotations=[annotation(area=area)]))
    assert not report.warnings
    assert evaluator._truth[0]["area"] == (300 if area is None else area)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_clean_files_are_read_as_detectron2_reads_them(tmp_path_factory, random):
    folder = tmp_path_factory.mktemp("clean")
    categories = [{"id": i, "name": f"c{i}"} for i in random.sample(range(1, 99), 4)]
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 64, "height": 48}
        for i in random.sample(range(50), 5)
    ]
    annotations = [
        {
            "id": n + 1,
            "image_id": random.choice(images)["id"],
            "category_id": random.choice(categories)["id"],
            "bbox": [random.randrange(40), random.random() * 20, 10.5, random.randrange(0, 9)],
            "iscrowd": random.randrange(2),
            "area": 30.25,
        }
        for n in range(random.randrange(1, 12))
    ]
    path = folder / "data.json"
    path.write_text(
        json.dumps({"images": images, "categories": categories, "annotations": annotations})
    )
    name = f"clean_{next(_numbers)}"
    theirs = load_coco_json(str(path), "root", name)
    ours = load_annotations(path).records("root")
    keys = ("bbox", "bbox_mode", "category_id", "iscrowd")
    assert [[{k: a[k] for k in keys} for a in r["annotations"]] for r in ours] == [
        [{k: a[k] for k in keys} for a in r["annotations"]] for r in theirs
    ]
    for key in ("file_name", "width", "height", "image_id"):
        assert [r[key] for r in ours] == [r[key] for r in theirs]
    assert (
        list(load_annotations(path).categories.values()) == MetadataCatalog.get(name).thing_classes
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=3), x, max_size=3),
    max_leaves=8,
)
KEYS = ("id", "name", "file_name", "width", "height", "image_id", "category_id", "bbox", "area")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(["images", "categories", "annotations"]),
    st.sampled_from([*KEYS, "iscrowd", "ignore", None]),
    JSON,
)
def test_the_validator_never_raises_and_agrees_with_loading(part, key, value):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [annotation()],
    }
    if key is None:
        content[part] = value
    else:
        content[part][0][key] = value
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    path = folder / f"vfnet_yolof_fuzz_{os.getpid()}.json"
    try:
        path.write_text(json.dumps(content))
        report = validate_coco(path, folder, images="exists")
        report.format()
        faults = read_annotations(path).faults.errors
        assert [f for f in report.errors if f.what != "missing image file"] == faults
    finally:
        path.unlink(missing_ok=True)


def test_corrected_annotations_count_at_once(tmp_path):
    """The same name and folder, other boxes: nothing of the first evaluation is kept."""
    name = f"corrected_{next(_numbers)}"
    boxes = [[10, 10, 60, 60]]
    record = {"file_name": "a.png", "image_id": 1, "width": 99, "height": 99}

    def records():
        found = {"bbox": boxes[-1], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        return [{**record, "annotations": [found]}]

    DatasetCatalog.register(name, records)
    MetadataCatalog.get(name).set(thing_classes=["cat"])
    for box in ([10, 10, 60, 60], [30, 30, 90, 80]):
        boxes.append(box)
        evaluator = CocoEvaluator(name, output_dir=tmp_path)
        x1, y1, x2, y2 = box
        assert [t["bbox"] for t in evaluator._truth] == [[x1, y1, x2 - x1, y2 - y1]]
    assert [p.name for p in tmp_path.iterdir()] == []


def test_coco_files_that_others_registered_are_read_and_checked_too(write):
    name = f"others_{next(_numbers)}"
    json_file, images = write(annotations=[annotation(segmentation=[[]])])
    register_coco_instances(name, {}, json_file, images)
    assert len(get_dataset_dicts(name)[0]["annotations"]) == 1
    assert MetadataCatalog.get(name).thing_classes == ["cat"]
    bad = f"others_{next(_numbers)}"
    json_file, images = write(annotations=[annotation(bbox=[0, 0, -1, 1])])
    register_coco_instances(bad, {}, json_file, images)
    with pytest.raises(ValueError, match=r"(?s)json cannot be used.*negative width"):
        get_dataset_dicts(bad)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    """Python's parser would drop the first value: a box, or all annotations of the file."""
    for text in (
        '{"images": [], "annotations": [{"id": 1}], "annotations": []}',
        '{"annotations": [{"id": 3, "bbox": [1, 2, 3, 4], "bbox": [5, 6, 7, 8]}]}',
    ):
        path = tmp_path / "twice.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"twice\.json.*'(annotations|bbox)' stands twice"):
            read_annotations(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings_are_named_as_such(write, encoding):
    json_file, _ = write(encoding, categories=[{"id": 1, "name": "fenêtre"}])
    with pytest.raises(
        ValueError, match=r"json is not valid JSON in UTF-8 .*: save it in that encoding"
    ):
        read_annotations(json_file)


def test_boxes_whose_area_no_number_holds_are_refused(write):
    *_, report = everywhere(write(annotations=[annotation(bbox=[0, 0, 1e308, 1e308])]))
    assert "box with NaN or infinity" in report.format()


@pytest.mark.parametrize("ignore", [2, "yes", [1]])
def test_ignore_flags_of_any_form_are_refused(write, ignore):
    *_, report = everywhere(write(annotations=[annotation(ignore=ignore)]))
    assert "annotation marked 'ignore'" in report.format()


@pytest.mark.parametrize("side", [0.0, -0.0, 1e-320, 1e-12, 9e-6])
def test_validator_and_training_agree_on_boxes_too_thin_to_be_learnt(write, side):
    records, _, report = everywhere(write(annotations=[annotation(bbox=[5, 6, side, 20])]))
    assert report.num_boxes == 0
    assert "box of zero width or height" in report.format()
    assert len(DetectionMapper(True, augmentations=[])(records[0])["instances"]) == 0


def test_names_keep_to_their_line(write):
    """A name may hold ends of lines and a terminal's commands; messages do not pass them on."""
    name = "re\nd\r\x1b[31m"
    records, evaluator, report = everywhere(write(categories=[{"id": 1, "name": name}]))
    assert evaluator.class_names == [name]
    assert report.format().splitlines()[-1].split() == [r"re\nd\r\x1b[31m", "1"]
    assert shown("c\ud800 \u00e9 \u732b") == "c\\ud800 \u00e9 \u732b"
