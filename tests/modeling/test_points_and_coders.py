"""Where locations lie, the anchors around them, and boxes as distances."""

import logging

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from vfnet_yolof.modeling.boxes import (
    boxes_to_distances,
    clip_boxes,
    distances_to_boxes,
)
from vfnet_yolof.modeling.points import PointGenerator
from vfnet_yolof.modeling.representations import integral

CPU = torch.device("cpu")


class TestPoints:
    def test_row_by_row_x_before_y(self) -> None:
        (points,) = PointGenerator([8]).points([(2, 3)], CPU)
        assert points.tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8]]
        assert points.dtype == torch.float32

    def test_offset_is_in_units_of_the_stride(self) -> None:
        for stride, first in ((8, 4.0), (32, 16.0)):
            (points,) = PointGenerator([stride], offset=0.5).points([(1, 2)], CPU)
            assert points.tolist() == [[first, first], [first + stride, first]]

    def test_every_level_has_its_own_stride(self) -> None:
        levels = PointGenerator([8, 16]).points([(1, 2), (1, 2)], CPU)
        assert [p[1, 0].item() for p in levels] == [8, 16]

    def test_anchors_are_squares_around_the_points(self) -> None:
        generator = PointGenerator([8, 16], octave_base_scale=8)
        grid = generator.grid([(2, 2), (1, 1)], CPU)
        assert grid.anchors[3].tolist() == [8 - 32, 8 - 32, 8 + 32, 8 + 32]
        assert grid.anchors[4].tolist() == [-64, -64, 64, 64]
        wide = PointGenerator([8], octave_base_scale=2).grid([(1, 1)], CPU)
        assert wide.anchors.tolist() == [[-8, -8, 8, 8]]

    def test_the_grid_has_all_levels_one_after_the_other(self) -> None:
        generator = PointGenerator([8, 16])
        grid = generator.grid([(1, 2), (1, 1)], CPU)
        assert torch.equal(grid.points, torch.cat(generator.points([(1, 2), (1, 1)], CPU)))
        assert grid.strides.tolist() == [8, 8, 16]
        assert grid.level_sizes == [2, 1]

    def test_strides_from_a_config_list(self) -> None:
        from omegaconf import OmegaConf

        assert PointGenerator(OmegaConf.create([8, 16])).strides == (8, 16)

    def test_levels_must_fit_the_strides(self) -> None:
        generator = PointGenerator([8, 16])
        with pytest.raises(ValueError, match="3 feature levels, but 2 strides"):
            generator.points([(1, 1)] * 3, CPU)
        with pytest.raises(ValueError, match="1 feature levels, but 2 strides"):
            generator.valid_mask([(1, 1)], (8, 8), CPU)


class TestValidMask:
    def test_what_lies_beyond_an_images_own_padding_is_not_valid(self) -> None:
        # An image of 16 x 24 (H, W) in a batch of 32 x 32: two rows and three columns of cells.
        mask = PointGenerator([8]).valid_mask([(4, 4)], (16, 24), CPU)
        assert mask.reshape(4, 4).int().tolist() == [
            [1, 1, 1, 0],
            [1, 1, 1, 0],
            [0, 0, 0, 0],
            [0, 0, 0, 0],
        ]

    def test_a_cell_that_the_image_begins_counts(self) -> None:
        for width, columns in ((8, 1), (9, 2), (16, 2)):
            mask = PointGenerator([8]).valid_mask([(1, 4)], (8, width), CPU)
            assert mask.sum() == columns, width

    def test_levels_are_concatenated(self) -> None:
        mask = PointGenerator([8, 16]).valid_mask([(2, 2), (1, 1)], (8, 8), CPU)
        assert mask.tolist() == [True, False, False, False, True]


numbers = st.floats(-1000, 1000, width=32)
quadruples = st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=5)


class TestDistances:
    def test_hand_computed(self) -> None:
        box = distances_to_boxes(torch.tensor([10.0, 20]), torch.tensor([1.0, 2, 3, 4]))
        assert box.tolist() == [9, 18, 13, 24]

    def test_negative_where_the_point_lies_outside(self) -> None:
        ltrb = boxes_to_distances(torch.tensor([[0.0, 5]]), torch.tensor([[2.0, 1, 8, 9]]))
        assert ltrb.tolist() == [[-2, 4, 8, 4]]

    @given(rows=quadruples, x=numbers, y=numbers)
    def test_round_trip(self, rows, x: float, y: float) -> None:
        ltrb = torch.tensor(rows).reshape(-1, 4)
        points = torch.tensor([[x, y]]).expand(len(ltrb), 2)
        back = boxes_to_distances(points, distances_to_boxes(points, ltrb))
        torch.testing.assert_close(back, ltrb, rtol=0, atol=5e-4)

    def test_any_leading_dimensions(self) -> None:
        points, boxes = torch.rand(6, 1, 2), torch.rand(1, 5, 4)
        ltrb = boxes_to_distances(points, boxes)
        assert ltrb.shape == (6, 5, 4)
        one = boxes_to_distances(points[2, 0], boxes[0, 3])
        assert torch.equal(ltrb[2, 3], one)

    def test_gradient_reaches_the_distances(self) -> None:
        ltrb = torch.ones(1, 4, requires_grad=True)
        distances_to_boxes(torch.zeros(1, 2), ltrb).backward(torch.tensor([[1.0, 2, 3, 4]]))
        assert ltrb.grad.tolist() == [[-1, -2, 3, 4]]


class TestClip:
    def test_x_to_the_width_and_y_to_the_height(self) -> None:
        boxes = torch.tensor([[-5.0, -6, 500, 600], [10, 20, 30, 40]])
        assert clip_boxes(boxes, (80, 90)).tolist() == [[0, 0, 90, 80], [10, 20, 30, 40]]

    def test_boxes_outside_lose_their_area(self) -> None:
        clipped = clip_boxes(torch.tensor([[100.0, 10, 120, 20]]), (80, 90))
        assert clipped.tolist() == [[90, 10, 90, 20]]


class TestIntegral:
    def test_hand_computed(self) -> None:
        """Probabilities 1/8, 1/2, 3/8 of 0, 2 and 4."""
        logits = torch.tensor([[1.0, 4.0, 3.0]]).log()
        assert integral(logits, interval=2.0).tolist() == pytest.approx([0.5 * 2 + 0.375 * 4])

    def test_operator_counters_can_follow(self, caplog: pytest.LogCaptureFixture) -> None:
        """fvcore's, which Detectron2's analyze_model.py is made of, refuses tensor times vector."""

        class Integral(nn.Module):
            def forward(self, logits: Tensor) -> Tensor:
                return integral(logits)

        caplog.set_level(logging.ERROR)
        count = FlopCountAnalysis(Integral(), (torch.zeros(7, 4, 17),))
        assert count.total() >= 0
