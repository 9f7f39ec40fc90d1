"""Advice on boxes that a detector can hardly learn: each kind at sizes worked out by hand."""

import numpy as np
import pytest
from torch import nn
from vfnet_yolof.engine import box_advice

STRIDES = (8, 16, 32, 64, 128)


def sides(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array(pairs, float)


def test_boxes_below_the_finest_stride() -> None:
    assert box_advice._of_strides(sides((8, 8), (200, 9)), STRIDES) == []
    (sentence,) = box_advice._of_strides(sides((7, 40), (20, 20)), STRIDES)
    assert sentence.startswith("50% of the boxes have a side below 8 px")


def test_boxes_beyond_the_reach_of_a_distribution() -> None:
    """A box of 512 x 2 px is as large as one of 32 x 32, so it lies on the level of stride 8."""
    model = nn.Module()
    model.representation = type("R", (), {"reg_max": 16, "interval": 1.0})()
    assert box_advice._of_reach(sides((256, 4)), STRIDES, model) == []  # 128 px, 16 strides
    (sentence,) = box_advice._of_reach(sides((512, 2)), STRIDES, model)  # 256 px, 32 strides
    assert "reg_max=16" in sentence and "set reg_max to 32" in sentence
    assert box_advice._of_reach(sides((512, 2)), STRIDES, nn.Module()) == []


def test_boxes_far_from_all_anchors() -> None:
    sizes = [[32, 64, 128, 256, 512]]
    assert box_advice._of_anchors(sides((11, 11), (1500, 1500)), sizes) == []
    (sentence,) = box_advice._of_anchors(sides((10, 10), (10, 10), (64, 64)), sizes)
    assert sentence.startswith("67% of the boxes are more than 3 times smaller or larger")
    assert box_advice._of_anchors(sides((1, 1)), None) == []


@pytest.mark.parametrize("short_edge", [32, 64])
def test_boxes_count_at_the_size_of_test_images(short_edge: int) -> None:
    import detectron2.data.transforms as T

    record = {"height": 64, "width": 128, "annotations": [{"bbox": [10, 10, 20, 40]}]}
    resize = T.AugmentationList([T.ResizeShortestEdge(short_edge, 1000)])
    found = box_advice._box_sides([record, {**record, "annotations": []}], resize)
    assert found.tolist() == [[20 * short_edge / 64, 40 * short_edge / 64]]
