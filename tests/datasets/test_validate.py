from __future__ import annotations

import math
from pathlib import Path

import pytest
import validate_dataset
from PIL import Image
from vfnet_yolof.data import validate_coco

IMAGES = [
    {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
    {"id": 2, "file_name": "b.png", "width": 40, "height": 30},
]
CATS = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def box(bbox, **other):
    return {"id": 11, "image_id": 1, "category_id": 3, "bbox": bbox} | other


GOOD = box([0, 0, 5, 5], id=10, category_id=7)


def test_a_clean_file(write_coco):
    json_file, images = write_coco()
    report = validate_coco(json_file, images, images="decode")
    assert report.ok
    assert not report.warnings
    assert (report.num_images, report.num_annotations) == (2, 2)
    assert report.class_counts == {"cat": 1, "dog": 1}
    report.raise_if_errors()
    assert "2 images, 2 annotations, 2 classes" in report.format()


@pytest.mark.parametrize(
    ("parts", "what", "example"),
    [
        ({"images": []}, "no images", "'images'"),
        ({"categories": None}, "no categories", "'categories'"),
        ({"categories": [CATS[0], {"id": 3, "name": "dog"}]}, "category id used twice", "3"),
        ({"categories": [CATS[0], {"id": 7, "name": "cat"}]}, "category name used twice", "cat"),
        ({"categories": [{"id": 3}]}, "incomplete categories", "entry 0 lacks 'name'"),
        ({"images": [IMAGES[0], IMAGES[1] | {"id": 1}]}, "image id used twice", "1"),
        ({"images": [{"id": 1, "file_name": "a.png"}]}, "incomplete images", "'width'"),
        ({"images": [IMAGES[0] | {"width": 0}, IMAGES[1]]}, "without a positive size", "a.png"),
        ({"images": [IMAGES[0] | {"height": None}, IMAGES[1]]}, "without a positive", "a.png"),
        ({"annotations": [box([0, 0, 5, 5]), box([1, 1, 5, 5])]}, "annotation id used twice", "11"),
        ({"annotations": [{"id": 4, "image_id": 1}]}, "incomplete annotations", "'category_id'"),
        ({"annotations": [box([0, 0, 5, 5], ignore=1)]}, "'ignore'", "annotation 11"),
        (
            {"annotations": [box([0, 0, 5, 5], image_id=99)]},
            "unknown image id",
            "99 in annotation 11",
        ),
        (
            {"annotations": [box([0, 0, 5, 5], category_id=4)]},
            "unknown category id",
            "4 in annotation 11",
        ),
        (
            {"annotations": [box([0, 0, 5])]},
            "not four numbers",
            "[0, 0, 5] in annotation 11 of image 1",
        ),
        ({"annotations": [box([0, 0, 5, None])]}, "not four numbers", "None"),
        ({"annotations": [box([0, 0, 5, "x"])]}, "not four numbers", "'x'"),
        ({"annotations": [GOOD, box([0, math.nan, 5, 5])]}, "NaN or infinity", "annotation 11"),
        ({"annotations": [GOOD, box([0, 0, math.inf, 5])]}, "NaN or infinity", "annotation 11"),
        ({"annotations": [GOOD, box([9, 9, -5, 5])]}, "negative width", "annotation 11"),
        ({"annotations": [GOOD, box([40, 3, 5, 5])]}, "entirely outside", "annotation 11"),
        ({"annotations": [GOOD, box([3, -9, 5, 5])]}, "entirely outside", "annotation 11"),
        (
            {"images": [IMAGES[0], IMAGES[1] | {"file_name": "no.png"}]},
            "missing image file",
            "no.png",
        ),
        (
            {"images": [IMAGES[0], IMAGES[1] | {"width": 30, "height": 40}]},
            "another size",
            "b.png is 40x30, not 30x40",
        ),
    ],
)
def test_errors(write_coco, parts, what, example):
    json_file, images = write_coco(**parts)
    report = validate_coco(json_file, images)
    assert not report.ok
    assert len(report.errors) == 1, report.format()
    assert what in report.errors[0].what
    assert example in str(report.errors[0])
    with pytest.raises(ValueError, match="data.json cannot be trained on") as error:
        report.raise_if_errors()
    assert example in str(error.value)


@pytest.mark.parametrize(
    ("parts", "what", "example"),
    [
        ({"annotations": [GOOD, box([3, 3, 0, 5])]}, "zero width or height", "annotation 11"),
        ({"annotations": [GOOD, box([35, 3, 7, 5])]}, "partly outside", "annotation 11"),
        ({"annotations": [GOOD]}, "class without boxes", "cat"),
        (
            {"categories": [CATS[0], {"id": 7, "name": "cat "}]},
            "case or spaces",
            "'cat' and 'cat '",
        ),
        ({"categories": [CATS[0], {"id": 7, "name": "Cat"}]}, "case or spaces", "'Cat' and 'cat'"),
        ({"annotations": None}, "no annotations", "inference"),
        ({"images": [IMAGES[0], IMAGES[1] | {"file_name": "a.png"}]}, "listed twice", "a.png"),
    ],
)
def test_warnings(write_coco, parts, what, example):
    json_file, images = write_coco(**parts)
    report = validate_coco(json_file, images)
    assert report.ok, report.format()
    assert len(report.warnings) == 1, report.format()
    assert what in report.warnings[0].what
    assert example in str(report.warnings[0])


def test_rounding_at_the_border_is_no_fault(write_coco):
    json_file, images = write_coco(annotations=[GOOD, box([-0.5, 3, 41, 27.9])])
    assert not validate_coco(json_file, images).warnings


def test_corner_format_is_recognised(write_coco):
    corners = [box([20 + i, 15, 30 + i, 29], id=i, category_id=3 + 4 * (i % 2)) for i in range(8)]
    json_file, images = write_coco(annotations=corners)
    assert "[x1, y1, x2, y2]" in validate_coco(json_file, images).format()


def test_many_faults_are_counted_and_some_named(write_coco):
    faulty = [box([0, 0, 5, 5], id=i, category_id=4) for i in range(30)]
    json_file, images = write_coco(annotations=faulty)
    (fault,) = validate_coco(json_file, images).errors
    assert (fault.count, len(fault.examples)) == (30, 5)
    assert "30 in all" in str(fault)


def test_empty_images_and_crowds(write_coco):
    json_file, images = write_coco(annotations=[GOOD, box([0, 0, 5, 5], iscrowd=1)])
    report = validate_coco(json_file, images)
    assert report.class_counts == {"cat": 0, "dog": 1}
    assert report.notes == [
        "1 boxes in 1 images reach training",
        "1 images without boxes (used as negatives, unless filter_empty=True)",
    ]


def test_damage_behind_the_header_needs_decoding(write_coco):
    json_file, images = write_coco()
    path = Path(images, "b.png")
    Image.effect_noise((40, 30), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert validate_coco(json_file, images).ok
    report = validate_coco(json_file, images, images="decode")
    assert "unreadable image" in report.errors[0].what
    assert "b.png" in report.errors[0].examples[0]
    path.write_bytes(b"text")
    assert "not an image" in validate_coco(json_file, images).format()
    assert validate_coco(json_file, images, images="exists").ok


def test_turned_photographs_are_measured_as_they_are_read(write_coco):
    json_file, images = write_coco(images=[IMAGES[0], IMAGES[1] | {"file_name": "t.jpg"}])
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (30, 40)).save(Path(images, "t.jpg"), exif=exif)
    for check in ("header", "decode"):
        assert validate_coco(json_file, images, images=check).ok


def test_command_line(write_coco, tmp_path, capsys):
    json_file, images = write_coco()
    assert validate_dataset.main([json_file, images, "--decode"]) == 0
    assert "cat" in capsys.readouterr().out
    bad, _ = write_coco("bad", annotations=[box([0, 0, 5, 5], image_id=99)])
    assert validate_dataset.main([bad, images]) == 1
    assert "unknown image id: 99" in capsys.readouterr().out
    assert validate_dataset.main([str(tmp_path / "absent.json"), images]) == 1
    assert "absent.json" in capsys.readouterr().out
