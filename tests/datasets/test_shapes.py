from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from vfnet_yolof.data import shapes


def picture(split: str, index: int) -> tuple[np.ndarray, list[shapes.ShapeObject]]:
    key = {"train": 0, "val": 1}[split]
    return shapes.draw_picture(np.random.default_rng((0, key, index)))


@pytest.fixture(scope="module")
def pictures() -> list[tuple[np.ndarray, list[shapes.ShapeObject]]]:
    return [picture("train", i) for i in range(70)]


def test_pixels_are_those_of_this_generator_version():
    """Whoever changes what is drawn must raise GENERATOR_VERSION, or old files would be used."""
    pixels, _ = picture("train", 0)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    assert (shapes.GENERATOR_VERSION, pixels.shape, digest) == (
        2,
        (172, 165, 3),
        "1eb7ac2d3c43002d",
    )


def test_a_picture_depends_on_its_split_and_index_only():
    again, objects = picture("val", 3)
    pixels, same = picture("val", 3)
    assert np.array_equal(again, pixels)
    assert objects == same
    other, _ = picture("train", 3)
    assert other.shape != pixels.shape or not np.array_equal(other, pixels)


def test_sizes_and_visibility(pictures):
    sides = np.array([p.shape[:2] for p, _ in pictures])
    assert sides.min() >= 144
    assert sides.max() <= 176
    assert len(np.unique(sides)) > 10
    counts = [len(objects) for _, objects in pictures]
    assert min(counts) >= 1
    assert max(counts) <= 8
    for pixels, objects in pictures:
        height, width = pixels.shape[:2]
        for obj in objects:
            x0, y0, x1, y1 = obj.box
            assert x0 >= 0
            assert x1 <= width
            assert y0 >= 0
            assert y1 <= height
            assert min(x1 - x0, y1 - y0) >= 8
            assert max(x1 - x0, y1 - y0) <= 120
            assert 0.5 <= obj.visible_fraction <= 1.0
    assert sum(o.visible_fraction < 0.9 for _, objects in pictures for o in objects) > 20


def test_no_box_is_more_than_half_below_later_boxes(pictures):
    for pixels, objects in pictures:
        ys, xs = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
        inside = [
            (xs > o.box[0]) & (xs < o.box[2]) & (ys > o.box[1]) & (ys < o.box[3]) for o in objects
        ]
        for i, box in enumerate(inside):
            covered = box & np.any([np.zeros_like(box), *inside[i + 1 :]], axis=0)
            assert covered.sum() <= 0.5 * box.sum()


def nearest_neighbour_accuracy(features: np.ndarray, classes: np.ndarray, k: int = 9) -> float:
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    votes = classes[np.argsort(distance, axis=1)[:, :k]]
    guess = [np.bincount(v, minlength=classes.max() + 1).argmax() for v in votes]
    return float((np.array(guess) == classes).mean())


def test_colour_does_not_give_the_class_away(pictures):
    """A classifier on the colour of an object's box does no better than chance (1/6)."""
    colours, classes = [], []
    for pixels, objects in pictures:
        for obj in objects:
            x0, y0, x1, y1 = (int(v) for v in obj.box)
            colours.append(pixels[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0))
            classes.append(obj.class_id)
    features, labels = np.array(colours), np.array(classes)
    assert len(labels) > 250
    assert np.bincount(labels, minlength=6).min() > 0.08 * len(labels)
    assert nearest_neighbour_accuracy(features, labels) < 0.27
    telling = np.concatenate([features, 500.0 * labels[:, None]], axis=1)
    assert nearest_neighbour_accuracy(telling, labels) > 0.9  # the classifier itself works


def test_files(tmp_path):
    folder = shapes.generate_shapes(tmp_path / "shapes" / "v", num_train=3, num_val=2)
    content = json.loads((folder / "annotations" / "instances_train.json").read_text())
    assert [i["file_name"] for i in content["images"]] == [f"{k:06d}.png" for k in range(3)]
    assert [c["name"] for c in content["categories"]] == list(shapes.CLASS_NAMES)
    pixels, objects = picture("train", 2)
    assert np.array_equal(np.asarray(Image.open(folder / "train" / "000002.png")), pixels)
    stored = [a for a in content["annotations"] if a["image_id"] == 3]
    assert [a["bbox"][:2] for a in stored] == [list(o.box[:2]) for o in objects]
    assert [a["category_id"] for a in stored] == [o.class_id + 1 for o in objects]
    assert len(list((folder / "val").iterdir())) == 2


def test_an_existing_folder_is_used_and_a_failure_leaves_none(tmp_path, monkeypatch):
    folder = tmp_path / "v"

    def fail(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "_write_split", fail)
        with pytest.raises(OSError, match="disk full"):
            shapes.generate_shapes(folder, num_train=1, num_val=1)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []
    shapes.generate_shapes(folder, num_train=1, num_val=1)
    monkeypatch.setattr(shapes, "_write_split", fail)
    shapes.generate_shapes(folder, num_train=1, num_val=1)


def test_those_who_ask_at_the_same_time_get_one_complete_folder(tmp_path):
    folder = tmp_path / "v"

    def ask(_: int) -> int:
        made = shapes.generate_shapes(folder, num_train=2, num_val=1)
        return len(list(Path(made, "train").iterdir()))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [2, 2, 2, 2]
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["v"]


def test_registered_by_importing_the_data_package():
    for split in ("train", "val"):
        assert f"shapes_{split}" in DatasetCatalog
        metadata = MetadataCatalog.get(f"shapes_{split}")
        assert metadata.thing_classes == list(shapes.CLASS_NAMES)
        assert f"v{shapes.GENERATOR_VERSION}" in Path(metadata.json_file).parts
