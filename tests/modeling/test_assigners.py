"""The two assigners against literal versions of their rules, and at their limits."""

from collections.abc import Callable

import pytest
import reference
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from operators import LargestTensor
from torch import Tensor
from vfnet_yolof.modeling.assigners import ATSSAssigner, FCOSAssigner
from vfnet_yolof.modeling.points import PointGenerator

CPU = torch.device("cpu")
STRIDES = (8, 16, 32)
SIZES = [(8, 8), (4, 4), (2, 2)]  # of a 64 x 64 picture; the last level has fewer than 9 anchors
LEVEL_SIZES = [64, 16, 4]
RANGES = ((-1, 24), (24, 48), (48, float("inf")))


def grid(offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Points (84, 2) and anchors (84, 4) of the three levels."""
    generator = PointGenerator(STRIDES, offset=offset)
    points, anchors, *_ = generator.grid(SIZES, CPU)
    return points, anchors


@st.composite
def box(draw: st.DrawFn) -> list[float]:
    """xyxy in quarters of a pixel, as small as one pixel, also partly or wholly outside."""
    x, y = (draw(st.integers(-96, 320)) / 4 for _ in range(2))
    width, height = (draw(st.one_of(st.just(4), st.integers(4, 400))) / 4 for _ in range(2))
    return [x, y, x + width, y + height]


@st.composite
def box_lists(draw: st.DrawFn) -> list[list[float]]:
    """Up to six boxes; some of them twice."""
    distinct = draw(st.lists(box(), max_size=4))
    return distinct + [list(b) for b in distinct[: draw(st.integers(0, 2))]]


MASKS = st.one_of(
    st.none(),
    st.tuples(st.integers(1, 64), st.integers(1, 64)),  # the padded (H, W) of a smaller image
)


def valid_mask(padded: tuple[int, int] | None) -> Tensor | None:
    return None if padded is None else PointGenerator(STRIDES).valid_mask(SIZES, padded, CPU)


def as_tensor(boxes: list[list[float]]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


class TestATSS:
    @given(
        boxes=box_lists(),
        padded=MASKS,
        topk=st.sampled_from([1, 3, 9, 20]),
        offset=st.sampled_from([0.0, 0.5]),
    )
    def test_equals_the_literal_rule(self, boxes, padded, topk: int, offset: float) -> None:
        _, anchors = grid(offset)
        valid = valid_mask(padded)
        want = reference.atss(
            anchors.tolist(), boxes, LEVEL_SIZES, topk, None if valid is None else valid.tolist()
        )
        assume(want.closest_call > 1e-6)
        got = ATSSAssigner(topk)(anchors, as_tensor(boxes), level_sizes=LEVEL_SIZES, valid=valid)
        assert got.box_of_each().tolist() == want.assigned

    @given(boxes=box_lists(), padded=MASKS)
    def test_chunks_change_nothing(self, boxes, padded) -> None:
        _, anchors = grid()
        call = dict(level_sizes=LEVEL_SIZES, valid=valid_mask(padded))
        small = ATSSAssigner(max_pairs=1)(anchors, as_tensor(boxes), **call)
        large = ATSSAssigner(max_pairs=10**9)(anchors, as_tensor(boxes), **call)
        assert torch.equal(small.box_of_each(), large.box_of_each())

    def test_no_boxes(self) -> None:
        _, anchors = grid()
        got = ATSSAssigner()(anchors, torch.zeros(0, 4), level_sizes=LEVEL_SIZES).box_of_each()
        assert got.tolist() == [-1] * 84
        assert got.dtype == torch.int64

    @pytest.mark.parametrize(
        ("heights", "positive"),
        [
            # Mean 0.667; biased standard deviation 0.205, unbiased 0.252: above 0.9 with it only.
            ((90, 70, 40), [False, False, False]),
            # Mean 0.617; 0.209 and 0.257: below 0.9 with either.
            ((90, 55, 40), [True, False, False]),
        ],
    )
    def test_the_standard_deviation_is_the_unbiased_one(self, heights, positive) -> None:
        target = torch.tensor([[0.0, 0, 100, 100]])
        anchors = torch.tensor([[0.0, 0, 100, h] for h in heights])  # IoU: height / 100
        got = ATSSAssigner()(anchors, target, level_sizes=[3]).box_of_each()
        assert (got >= 0).tolist() == positive

    def test_a_location_two_boxes_want_goes_to_the_better_one(self) -> None:
        points, anchors = grid()
        here = 3 * 8 + 3
        assert points[here].tolist() == [24, 24]
        exact, loose = anchors[here], anchors[here] + torch.tensor([4.0, 4, -4, -4])
        wants = [
            ATSSAssigner()(anchors, b[None], level_sizes=LEVEL_SIZES).box_of_each()[here].item()
            for b in (exact, loose)
        ]
        assert wants == [0, 0]
        for boxes, winner in (([exact, loose], 0), ([loose, exact], 1)):
            got = ATSSAssigner()(anchors, torch.stack(boxes), level_sizes=LEVEL_SIZES).box_of_each()
            assert got[here] == winner

    def test_of_equal_boxes_the_first_wins_everything(self) -> None:
        _, anchors = grid()
        one = torch.tensor([[10.0, 12, 50, 44]])
        got = ATSSAssigner()(anchors, one.repeat(3, 1), level_sizes=LEVEL_SIZES).box_of_each()
        assert set(got.tolist()) == {-1, 0}

    def test_of_equally_near_anchors_the_earlier_ones_are_taken(self) -> None:
        points, anchors = grid()
        tie = torch.tensor([[18.0, 18, 38, 38]])  # its centre (28, 28) is amid four points
        got = ATSSAssigner(topk=1)(anchors[:64], tie, level_sizes=[64]).box_of_each()
        (taken,) = (got >= 0).nonzero()[:, 0].tolist()
        assert points[taken].tolist() == [24, 24]

    @pytest.mark.parametrize(("inset", "positive"), [(0.0, False), (0.0078, False), (0.25, True)])
    def test_the_centre_must_lie_inside_by_a_hundredth_of_a_pixel(
        self, inset: float, positive: bool
    ) -> None:
        anchors = torch.tensor([[0.0, 0, 64, 64]])
        target = torch.tensor([[32 - inset, 0, 96, 64]])
        got = ATSSAssigner()(anchors, target, level_sizes=[1]).box_of_each()
        assert (got[0] == 0) == positive

    def test_one_candidate_is_its_own_threshold(self) -> None:
        """A statistic of one number has no spread; NaN would leave the box unlearnt."""
        got = ATSSAssigner()(
            torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([[20.0, 20, 50, 50]]), level_sizes=[1]
        )
        assert got.box_of_each().tolist() == [0]

    def test_invalid_locations_are_as_if_they_were_not_there(self) -> None:
        _, anchors = grid()
        target = torch.tensor([[4.0, 4, 60, 60]])
        everywhere = ATSSAssigner()(anchors, target, level_sizes=LEVEL_SIZES).box_of_each()
        valid = torch.ones(84, dtype=torch.bool)
        valid[(everywhere >= 0).nonzero()[0]] = False
        got = ATSSAssigner()(anchors, target, level_sizes=LEVEL_SIZES, valid=valid).box_of_each()
        counts = [int(mask.sum()) for mask in valid.split(LEVEL_SIZES)]
        without = ATSSAssigner()(anchors[valid], target, level_sizes=counts).box_of_each()
        assert sum(counts) == 83
        assert torch.equal(got[valid], without)
        assert got[~valid].tolist() == [-1]
        assert (without >= 0).any()

    def test_topk_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="topk must be at least 1, got 0"):
            ATSSAssigner(0)


class TestFCOS:
    @given(
        boxes=box_lists(),
        padded=MASKS,
        offset=st.sampled_from([0.0, 0.5]),
        center_radius=st.sampled_from([None, 0.5, 1.5]),
    )
    def test_equals_the_literal_rule(self, boxes, padded, offset, center_radius) -> None:
        points, anchors = grid(offset)
        valid = valid_mask(padded)
        want = reference.fcos(
            points.tolist(),
            boxes,
            LEVEL_SIZES,
            RANGES,
            STRIDES,
            center_radius,
            None if valid is None else valid.tolist(),
        )
        assigner = FCOSAssigner(RANGES, center_radius, STRIDES)
        got = assigner(anchors, as_tensor(boxes), level_sizes=LEVEL_SIZES, valid=valid)
        assert got.box_of_each().tolist() == want

    @given(boxes=box_lists(), padded=MASKS, center_radius=st.sampled_from([None, 1.5]))
    def test_chunks_change_nothing(self, boxes, padded, center_radius) -> None:
        _, anchors = grid(0.5)
        call = dict(level_sizes=LEVEL_SIZES, valid=valid_mask(padded))
        small = FCOSAssigner(RANGES, center_radius, STRIDES, max_pairs=1)
        large = FCOSAssigner(RANGES, center_radius, STRIDES)
        boxes = as_tensor(boxes)
        got, want = (x(anchors, boxes, **call).box_of_each() for x in (small, large))
        assert torch.equal(got, want)

    def test_a_location_in_two_boxes_learns_the_smaller(self) -> None:
        points, anchors = grid(0.5)
        large, small = [0.0, 0, 40, 40], [8.0, 8, 32, 32]
        inside = ((points > 8) & (points < 32)).all(1)
        for boxes, winner in (([large, small], 1), ([small, large], 0)):
            assigner = FCOSAssigner([(-1, 1000)] * 3)
            got = assigner(anchors, as_tensor(boxes), level_sizes=LEVEL_SIZES).box_of_each()
            assert (got[inside] == winner).all()
            assert (got == 1 - winner).any()

    def test_both_ends_of_a_size_range_are_included(self) -> None:
        point = torch.tensor([[100.0, 100, 100, 100]])
        for reach, wanted in ((63.5, [0, -1]), (64.0, [0, 0]), (64.5, [-1, 0])):
            target = torch.tensor([[100 - reach, 90, 110, 110]])
            got = FCOSAssigner([(-1, 64), (64, 128)])(
                point.repeat(2, 1), target, level_sizes=[1, 1]
            )
            assert got.box_of_each().tolist() == wanted, reach

    def test_levels_must_fit_the_ranges(self) -> None:
        with pytest.raises(ValueError, match="2 feature levels, but 5 size_ranges"):
            FCOSAssigner()(torch.zeros(2, 4), torch.zeros(0, 4), level_sizes=[1, 1])

    def test_no_boxes(self) -> None:
        _, anchors = grid()
        got = FCOSAssigner(RANGES)(
            anchors, torch.zeros(0, 4), level_sizes=LEVEL_SIZES
        ).box_of_each()
        assert got.tolist() == [-1] * 84

    def test_centre_sampling_needs_a_stride_for_each_level(self) -> None:
        with pytest.raises(ValueError, match="5 strides, but 3 size_ranges"):
            FCOSAssigner(RANGES, 1.5)
        with pytest.raises(ValueError, match="center_radius must be positive or None, got 0"):
            FCOSAssigner(RANGES, 0.0, STRIDES)


@pytest.mark.parametrize("assigner", [ATSSAssigner(), FCOSAssigner(RANGES, 1.5, STRIDES)])
def test_no_locations(assigner: Callable) -> None:
    got = assigner(
        torch.zeros(0, 4), torch.tensor([[0.0, 0, 9, 9]]), level_sizes=[0, 0, 0]
    ).box_of_each()
    assert got.shape == (0,)
    assert got.dtype == torch.int64


@pytest.mark.parametrize("make", [ATSSAssigner, FCOSAssigner])
def test_memory_does_not_grow_with_the_number_of_boxes(make: Callable) -> None:
    """5,000 boxes in a picture of 160 x 160."""
    generator = PointGenerator()
    sizes = [(-(-160 // s), -(-160 // s)) for s in generator.strides]
    _, anchors, _, level_sizes = generator.grid(sizes, CPU)
    corner = torch.rand(5000, 2, generator=torch.Generator().manual_seed(0)) * 140
    boxes = torch.cat([corner, corner + 4 + corner.flip(1) / 8], dim=1)
    max_pairs = 40_000
    assert len(anchors) * len(boxes) > 50 * max_pairs
    with LargestTensor() as largest:
        got = make(max_pairs=max_pairs)(anchors, boxes, level_sizes=level_sizes).box_of_each()
    assert (got >= 0).sum() > 100
    # Apart from the pieces only the few candidates of each box are held.
    candidates = len(boxes) * 9 * len(sizes)
    assert largest.bytes <= 16 * (max_pairs + candidates)
