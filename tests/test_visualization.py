"""Drawings show what they should where they should, and leave their input alone."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from vfnet_yolof.visualization import (
    INITIAL_BOX_COLOR,
    REFINED_BOX_COLOR,
    STAR_POINT_COLOR,
    class_color,
    draw_instances,
    draw_star,
)

NAMES = ["cat", "Größe", "кот"]


def detections(boxes: list[list[float]], classes: list[int], scores: list[float]) -> Instances:
    instances = Instances((120, 160))
    instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    instances.scores = torch.tensor(scores)
    return instances


@pytest.fixture
def image() -> np.ndarray:
    return np.full((120, 160, 3), 128, np.uint8)


def test_box_outline_and_label(image):
    drawn = draw_instances(image, detections([[40, 50, 100, 90]], [1], [0.9]), NAMES, line_width=1)
    color = class_color(1)
    for x, y in ((40, 70), (100, 70), (70, 90)):
        assert tuple(drawn[y, x]) == color
    assert tuple(drawn[70, 70]) == (128, 128, 128)  # boxes are not filled
    label = drawn[36:50, 40:80].reshape(-1, 3)
    assert (label == color).all(1).any()  # the strip
    assert len(np.unique(label, axis=0)) > 2  # and the text on it
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (image == 128).all()


def test_score_threshold_and_no_detections(image):
    found = detections([[40, 50, 100, 90]], [1], [0.4])
    assert (draw_instances(image, found, NAMES, score_thresh=0.5) == image).all()
    assert (draw_instances(image, detections([], [], []), NAMES) == image).all()
    assert (draw_instances(image, found, NAMES) != image).any()


def test_surer_detections_lie_above(image):
    box = [40.0, 50.0, 100.0, 90.0]
    found = detections([box, box], [0, 1], [0.9, 0.5])
    drawn = draw_instances(image, found, NAMES, line_width=1)
    assert tuple(drawn[70, 40]) == class_color(0)


def test_boxes_at_and_beyond_the_border(image):
    found = detections(
        [[-20, -20, 300, 300], [150, 0, 160, 5], [10, 10, 5, 5]], [0, 1, 2], [0.9] * 3
    )
    drawn = draw_instances(image, found, NAMES)
    assert drawn.shape == image.shape
    assert (drawn[:20, 120:] != 128).any()  # the label is moved into the image


def test_names_and_images_are_checked(image):
    with pytest.raises(IndexError):
        draw_instances(image, detections([[0, 0, 9, 9]], [3], [0.9]), NAMES)
    with pytest.raises(ValueError, match="got float64"):
        draw_instances(image / 255, detections([], [], []), NAMES)


def test_colors_are_fixed_and_differ():
    colors = [class_color(i) for i in range(80)]
    assert len(set(colors)) == 80
    assert colors[:2] == [class_color(0), class_color(1)]
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_star(image):
    found = detections([[40, 50, 100, 90]], [0], [0.9])
    found.init_boxes = Boxes(torch.tensor([[30.0, 45.0, 90.0, 95.0]]))
    x, y = torch.meshgrid(
        torch.tensor([30.0, 60.0, 90.0]), torch.tensor([45.0, 70.0, 95.0]), indexing="xy"
    )
    found.star_points = torch.stack([x, y], dim=-1).reshape(1, 9, 2)
    drawn = draw_star(image, found, NAMES, line_width=1)
    assert tuple(drawn[85, 30]) == INITIAL_BOX_COLOR
    assert tuple(drawn[80, 40]) == REFINED_BOX_COLOR
    for x, y in found.star_points[0, 3:].int().tolist():  # the label may cover the upper three
        assert tuple(drawn[y, x]) == STAR_POINT_COLOR


def test_star_needs_its_fields(image):
    with pytest.raises(ValueError, match="no init_boxes.*predict_star"):
        draw_star(image, detections([], [], []), NAMES)
