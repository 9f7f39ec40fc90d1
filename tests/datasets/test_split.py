"""Parting of data into training and validation: by the images' names, a share of each class."""

from __future__ import annotations

import json
from pathlib import Path

import data_formats as formats
import pytest
from data_formats import Box, Picture
from hypothesis import given
from hypothesis import strategies as st
from vfnet_yolof.data.formats.coco import choose_validation
from vfnet_yolof.data.layouts import open_data

ONE = [Picture("a b.png", 40, 30, [Box("cat", 4.0, 3.0, 20.0, 15.0)])]
NAMES = [f"{i:04}.jpg" for i in range(200)]
CLASSES = [{"rare"} if i % 20 == 0 else {"cat"} if i % 3 else set() for i in range(200)]


def validation_of(names: list[str], classes: list[set[str]], share: float = 0.2) -> set[str]:
    pairs = zip(names, choose_validation(names, classes, share), strict=True)
    return {name for name, is_val in pairs if is_val}


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_share_of_each_class(share: float) -> None:
    chosen = validation_of(NAMES, CLASSES, share)
    assert len(chosen) == 200 * share
    for kind in ({"rare"}, {"cat"}, set()):
        of_kind = {n for n, c in zip(NAMES, CLASSES, strict=True) if c == kind}
        wanted = min(max(share * len(of_kind), 1), len(of_kind) - 1)
        assert abs(len(chosen & of_kind) - wanted) < 1


def test_neither_order_nor_folder_counts() -> None:
    chosen = validation_of(NAMES, CLASSES)
    order = sorted(range(200), key=lambda i: i * 37 % 200)
    names = [f"elsewhere/{NAMES[i]}" for i in order]
    again = validation_of(names, [CLASSES[i] for i in order])
    assert {Path(name).name for name in again} == chosen


@given(st.text("abc", min_size=1), st.sampled_from([set(), {"cat"}, {"rare"}, {"cat", "rare"}]))
def test_a_further_image_moves_few(name: str, classes: set[str]) -> None:
    before = validation_of(NAMES, CLASSES)
    after = validation_of([*NAMES, name], [*CLASSES, classes])
    assert len(before ^ (after - {name})) <= 3


@given(
    st.lists(st.sets(st.sampled_from("abcdef")), min_size=2, max_size=30),
    st.floats(0.01, 0.99),
)
def test_neither_side_is_empty(classes: list[set[str]], share: float) -> None:
    chosen = validation_of(NAMES[: len(classes)], classes, share)
    assert 0 < len(chosen) < len(classes)
    groups = len({*map(frozenset, classes)})
    assert -1 < len(chosen) - share * len(classes) < groups + 1 or share > 0.5


def test_each_class_in_one_image() -> None:
    chosen = validation_of(NAMES[:20], [{str(i)} for i in range(20)])
    assert len(chosen) == 4


def test_refused(tmp_path: Path) -> None:
    root = formats.write_csv(tmp_path / "one", ONE)
    with pytest.raises(ValueError, match="--split needs two images"):
        open_data(root, 0.5)
    with pytest.raises(ValueError, match="--split 1: give a share above 0 and below 1"):
        open_data(root, 1)
    for folder in ("train", "valid"):
        formats.write_csv(tmp_path / "two" / folder, ONE)
    with pytest.raises(ValueError, match="has train and val already; leave --split out"):
        open_data(tmp_path / "two", 0.5)


def test_coco_keeps_what_else_a_file_holds(tmp_path: Path) -> None:
    root = formats.write_coco(tmp_path, formats.pictures(8))
    file = root / "train" / "_annotations.coco.json"
    content = json.loads(file.read_text())
    content["info"] = {"about": "birds"}
    content["images"][0]["id"] = "first"
    content["annotations"][0] |= {"image_id": "first", "segmentation": [[1, 2, 3, 4, 5, 6]]}
    for entry in content["annotations"]:
        if entry["image_id"] == 0:
            entry["image_id"] = "first"
    file.write_text(json.dumps(content))
    splits = open_data(root, 0.25)
    assert splits.train and splits.val
    parts = [json.loads(Path(part.json_file).read_text()) for part in splits[:2]]
    for key in ("images", "annotations"):
        entries = [entry for part in parts for entry in part[key]]
        assert sorted(map(str, entries)) == sorted(map(str, content[key]))
    assert all(part["info"] == {"about": "birds"} for part in parts)
