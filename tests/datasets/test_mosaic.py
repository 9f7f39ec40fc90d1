from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from hypothesis import given
from hypothesis import strategies as st
from vfnet_yolof.data import (
    DetectionMapper,
    JitterCrop,
    Mosaic,
    RandomShift,
    ResizeSquare,
    build_train_loader,
)
from vfnet_yolof.data.mapper import make_instances


def sample(number: int, width: int, height: int, boxes: Any, content: Any = None) -> dict[str, Any]:
    """A picture whose pixels tell their column, their row and the picture's number."""
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    image[0] = torch.arange(width)
    image[1] = torch.arange(height)[:, None]
    image[2] = number
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return {
        "image_id": number,
        "image": image,
        "content_box": torch.tensor(content or [0, 0, width, height], dtype=torch.float32),
        "instances": make_instances(
            (height, width), boxes, np.full(len(boxes), 10 * number), min_box_side=0
        ),
    }


def four(**options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    everywhere = [[0, 0, 100, 90]]
    samples = [sample(n, 100, 90, everywhere, **options) for n in (1, 2, 3, 4)]
    rest = iter(samples[1:])
    made = Mosaic(size=80, min_offset=0.25, prob=1.0)(samples[0], lambda: next(rest))
    return made, samples


@given(seed=st.integers(0, 500))
def test_each_picture_gives_the_part_at_its_corner(seed: int) -> None:
    np.random.seed(seed)
    made, _ = four()
    image = made["image"].permute(1, 2, 0).tolist()
    numbers = made["image"][2]
    cut_x, cut_y = int((numbers[0] == 1).sum()), int((numbers[:, 0] == 1).sum())
    assert 20 <= cut_x <= 60
    assert 20 <= cut_y <= 60
    # columns count from the left in pictures 1 and 3, to the right end in 2 and 4; rows likewise
    assert image[0][0] == [0, 0, 1]
    assert image[cut_y - 1][cut_x - 1] == [cut_x - 1, cut_y - 1, 1]
    assert image[0][79] == [99, 0, 2]
    assert image[0][cut_x] == [99 - 79 + cut_x, 0, 2]
    assert image[79][0] == [0, 89, 3]
    assert image[cut_y][0] == [0, 89 - 79 + cut_y, 3]
    assert image[79][79] == [99, 89, 4]
    assert made["instances"].gt_boxes.tensor.tolist() == [
        [0, 0, cut_x, cut_y],
        [cut_x, 0, 80, cut_y],
        [0, cut_y, cut_x, 80],
        [cut_x, cut_y, 80, 80],
    ]
    assert made["instances"].gt_classes.tolist() == [10, 20, 30, 40]
    assert made["instances"].image_size == (80, 80)
    assert made["image_id"] == 1
    assert made["content_box"].tolist() == [0, 0, 80, 80]


@given(seed=st.integers(0, 500))
def test_filled_borders_are_left_out_where_the_content_is_large_enough(seed: int) -> None:
    np.random.seed(seed)
    made, _ = four(content=[15, 10, 85, 80])  # 70 x 70, more than any piece
    corners = made["image"][:, [0, 0, 79, 79], [0, 79, 0, 79]].T.tolist()
    assert corners == [[15, 10, 1], [84, 10, 2], [15, 79, 3], [84, 79, 4]]


def test_small_pictures_lie_at_the_centre() -> None:
    np.random.seed(0)
    tiny = [sample(n, 10, 12, [[0, 0, 10, 12]]) for n in (1, 2, 3, 4)]
    rest = iter(tiny[1:])
    made = Mosaic(size=80, min_offset=0.25, prob=1.0)(tiny[0], lambda: next(rest))
    boxes = made["instances"].gt_boxes.tensor
    assert (boxes[:, 2:] - boxes[:, :2]).tolist() == [[10, 12]] * 4
    x, y = boxes[0, 2:].tolist()
    assert boxes.tolist() == [
        [x - 10, y - 12, x, y],
        [x, y - 12, x + 10, y],
        [x - 10, y, x, y + 12],
        [x, y, x + 10, y + 12],
    ]
    assert (made["image"][2] > 0).sum() == 4 * 10 * 12


def test_boxes_that_a_piece_does_not_show_are_dropped() -> None:
    np.random.seed(0)
    corner = [[95, 85, 100, 90], [0, 0, 0.5, 40]]
    samples = [sample(n, 100, 90, corner if n == 1 else []) for n in (1, 2, 3, 4)]
    rest = iter(samples[1:])
    keep_all = Mosaic(size=80, min_offset=0.25, prob=1.0)
    made = keep_all(samples[0], lambda: next(rest))["instances"]
    assert len(made) == 1
    assert made.gt_boxes.tensor[0, 2] == 0.5
    rest = iter(samples[1:])
    larger = Mosaic(size=80, min_offset=0.25, prob=1.0, min_box_side=1.0)
    assert len(larger(samples[0], lambda: next(rest))["instances"]) == 0


def test_half_of_the_samples_stay_as_they_are() -> None:
    np.random.seed(0)
    samples = [sample(n, 100, 90, []) for n in (1, 2)]
    made = [Mosaic(80)(samples[0], lambda: samples[1]) for _ in range(200)]
    assert sum(m is samples[0] for m in made) == pytest.approx(100, abs=30)


def test_bad_arguments() -> None:
    for name, value in (("size", 1), ("min_offset", 0.6), ("prob", 2)):
        with pytest.raises(ValueError, match=f"{name} must.*{value}"):
            Mosaic(**{name: value})


def loader(records: list[dict], *, num_workers: int = 0, start: int = 0, seed: int = 1):
    augmentations = [JitterCrop(0.3), ResizeSquare(32, [0.8, 1.2]), T.RandomFlip(), RandomShift(3)]
    mapper = DetectionMapper(is_train=True, augmentations=augmentations)
    made = build_train_loader(
        records, mapper, 4, num_workers=num_workers, seed=seed, mosaic=Mosaic(32)
    )
    made.set_start_iteration(start)
    return made


def batches(source: Any, count: int) -> list:
    return [
        [
            (s["image_id"], s["image"].tolist(), s["instances"].gt_boxes.tensor.tolist())
            for s in batch
        ]
        for batch in islice(source, count)
    ]


def test_workers_and_restarts_do_not_change_the_mosaics(records) -> None:
    whole = batches(loader(records), 6)
    assert whole == batches(loader(records, num_workers=2), 6)
    assert whole[4:] == batches(loader(records, start=4, num_workers=1), 2)
    assert whole != batches(loader(records, seed=2), 6)


def test_pictures_come_from_the_whole_data_set(records) -> None:
    box = {"bbox": [0, 0, 32, 32], "bbox_mode": BoxMode.XYXY_ABS}
    for i, record in enumerate(records):
        record["annotations"] = [{**box, "category_id": i}]  # the class tells the picture
    seen = [
        classes
        for batch in islice(loader(records), 90)
        for s in batch
        if s["image_id"] == 100 and len(classes := s["instances"].gt_classes.tolist()) > 1
    ]
    assert {c for classes in seen for c in classes} == set(range(10))


def test_an_unreadable_partner_is_named(records, tmp_path) -> None:
    (tmp_path / "4.png").write_bytes(b"broken")
    mapper = DetectionMapper(is_train=True, augmentations=[])
    few = [records[0], records[4]]
    made = build_train_loader(few, mapper, 1, seed=0, mosaic=Mosaic(32, prob=1.0))
    with pytest.raises(RuntimeError, match=r"4\.png"):
        batches(made, 9)
