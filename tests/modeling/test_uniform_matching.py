"""Uniform matching against a literal version of its rule, and at its limits."""

import pytest
import reference
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from hypothesis import given
from hypothesis import strategies as st
from operators import HostWaits, LargestTensor
from torch import Tensor
from vfnet_yolof.modeling.assigners import UniformAssigner
from vfnet_yolof.modeling.assigners.atss import smallest

SIDES = [16, 32, 64]


def make_anchors(rows: int, columns: int) -> Tensor:
    """Three squares at each location, 16 pixels apart."""
    generator = DefaultAnchorGenerator(sizes=[SIDES], aspect_ratios=[1.0], strides=[16], offset=0.0)
    return generator([torch.zeros(1, 1, rows, columns)])[0].tensor


ANCHORS = make_anchors(3, 4)


def random_boxes(count: int, extent: float, seed: int) -> Tensor:
    """(count, 4) in quarters of a pixel, so that float32 sums exactly."""
    generator = torch.Generator().manual_seed(seed)
    corner = (torch.rand(count, 2, generator=generator) * 4 * extent).round() / 4
    side = (torch.rand(count, 2, generator=generator) * extent).round().clamp(min=1) / 4
    return torch.cat([corner, corner + side], dim=1)


@st.composite
def box(draw: st.DrawFn) -> list[float]:
    """xyxy in halves of a pixel, as small as one pixel, also partly outside."""
    x, y = (draw(st.integers(-30, 100)) / 2 for _ in range(2))
    width, height = (draw(st.integers(2, 120)) / 2 for _ in range(2))
    return [x, y, x + width, y + height]


@st.composite
def box_lists(draw: st.DrawFn) -> list[list[float]]:
    """Up to five boxes; some of them twice, some anchors themselves."""
    boxes = draw(st.lists(box(), max_size=3))
    boxes += [list(b) for b in boxes[: draw(st.integers(0, 1))]]
    if draw(st.booleans()):
        boxes.append(ANCHORS[draw(st.integers(0, len(ANCHORS) - 1))].tolist())
    return boxes


class TestTheRule:
    @given(
        boxes=box_lists(),
        seed=st.integers(0, 1000),
        topk=st.sampled_from([1, 2, 4, 50]),
        min_iou=st.sampled_from([0.0, 0.15, 0.5]),
        max_iou=st.sampled_from([0.3, 0.7, 1.0]),
        max_pairs=st.sampled_from([1, 80, 10**6]),
    )
    def test_equals_the_literal_one(
        self, boxes, seed: int, topk: int, min_iou: float, max_iou: float, max_pairs: int
    ) -> None:
        """Also the order, and the earlier anchor where distances are equal, as they often are."""
        preds = random_boxes(len(ANCHORS), 60, seed)
        preds[::7] = ANCHORS[::7]
        want = reference.uniform(ANCHORS.tolist(), preds.tolist(), boxes, topk, min_iou, max_iou)
        gt_boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        assign = UniformAssigner(topk, min_iou, max_iou, max_pairs)
        got = assign(ANCHORS, gt_boxes, pred_boxes=preds)
        pairs = list(zip(got.anchor_idx.tolist(), got.gt_idx.tolist(), strict=True))
        assert pairs == want.pairs
        # Where float32 cannot tell the two sides of a comparison, either is right.
        if want.closest_call > 1e-6:
            assert got.ignored_pairs.tolist() == want.ignored_pairs
            assert got.ignored_anchors.tolist() == want.ignored_anchors

    def test_equal_distances_are_common(self) -> None:
        """A box in the middle of four locations: whichever is taken, it must always be the same."""
        match = UniformAssigner(1)(
            ANCHORS, torch.tensor([[-8.0, -8, 24, 24]]), pred_boxes=ANCHORS.flip(0)
        )
        # Locations 0, 1 of the first row and of the second; 32 px is the middle size.
        last = len(ANCHORS) - 1
        assert match.anchor_idx.tolist() == [last - (3 * 5 + 1), 1]

    def test_every_box_gets_as_many(self) -> None:
        boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 300, 300], [500, 500, 508, 501]])
        match = UniformAssigner(4)(ANCHORS, boxes, pred_boxes=ANCHORS)
        assert match.gt_idx.bincount().tolist() == [8, 8, 8]
        # Those far from every anchor are ignored after all.
        assert match.ignored_pairs[match.gt_idx == 2].all()

    def test_an_anchor_of_two_boxes_learns_the_last(self) -> None:
        boxes = ANCHORS[[4, 4]]
        match = UniformAssigner(1)(ANCHORS, boxes, pred_boxes=ANCHORS)
        assert match.anchor_idx.tolist() == [4] * 4
        labels = match.labels(torch.tensor([0, 1]), num_classes=2)
        assert labels[4] == 1
        assert set(labels[[0, 1, 2, 3]].tolist()) == {2}

    def test_ignored_unless_matched(self) -> None:
        """Every prediction covers the box, two anchors learn it, the others are ignored."""
        boxes = ANCHORS[[4]]
        preds = boxes.expand(len(ANCHORS), 4)
        match = UniformAssigner(1, min_iou=0.15)(ANCHORS, boxes, pred_boxes=preds)
        assert match.anchor_idx.tolist() == [0, 4]
        assert match.ignored_pairs.tolist() == [True, False]
        labels = match.labels(torch.tensor([1]), num_classes=2)
        assert labels.tolist() == [1 if i == 4 else -1 for i in range(len(ANCHORS))]

    def test_boxes_that_are_no_numbers_are_taken_last(self) -> None:
        """A diverging network fails at its loss, which says so, not here."""
        preds = ANCHORS.clone()
        preds[:30] = torch.nan
        match = UniformAssigner(4)(ANCHORS, ANCHORS[:2], pred_boxes=preds)
        assert (match.anchor_idx.reshape(4, 2, 2)[:, 0] >= 30).all()

    def test_no_boxes(self) -> None:
        match = UniformAssigner()(ANCHORS, torch.zeros(0, 4), pred_boxes=ANCHORS)
        assert match.anchor_idx.shape == match.gt_idx.shape == match.ignored_pairs.shape == (0,)
        assert match.anchor_idx.dtype == match.gt_idx.dtype == torch.int64
        assert not match.ignored_anchors.any()
        assert match.labels(torch.zeros(0, dtype=torch.int64), 3).tolist() == [3] * len(ANCHORS)

    def test_half_precision_boxes(self) -> None:
        boxes = random_boxes(3, 40, 0).bfloat16()
        match = UniformAssigner()(ANCHORS, boxes, pred_boxes=ANCHORS.bfloat16())
        assert len(match.anchor_idx) == 24


class TestCost:
    def test_memory_is_bounded(self) -> None:
        """Nothing but a piece of at most ``max_pairs`` pairs and the choices are ever held."""
        anchors = make_anchors(20, 20)
        boxes = random_boxes(2000, 300, 1)
        max_pairs = 24_000
        assert len(anchors) * len(boxes) > 50 * max_pairs
        with LargestTensor() as largest:
            match = UniformAssigner(4, max_pairs=max_pairs)(anchors, boxes, pred_boxes=anchors)
        assert len(match.anchor_idx) == 2000 * 8
        assert largest.bytes <= 16 * max(max_pairs, len(match.anchor_idx))

    def test_never_waits_for_the_device(self) -> None:
        boxes, classes = random_boxes(5, 60, 2), torch.zeros(5, dtype=torch.int64)
        with HostWaits() as waits:
            match = UniformAssigner()(ANCHORS, boxes, pred_boxes=ANCHORS)
            match.labels(classes, 3)
        assert waits.found == []
        with HostWaits() as waits:
            float(boxes.sum()), boxes[boxes[:, 0] > 0]
        assert waits.found == ["_local_scalar_dense", "index with a mask"]


def test_smallest() -> None:
    values = torch.tensor([[3.0, 1, torch.nan, 1, 0], [2, 2, 2, torch.inf, 2]])
    assert smallest(values, 3).tolist() == [[4, 1, 3], [0, 1, 2]]
    assert smallest(values, 9).tolist() == [[4, 1, 3, 0, 2], [0, 1, 2, 4, 3]]
    assert smallest(values[:0], 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topk": 0}, "topk must be at least 1, got 0"),
        ({"min_iou": -0.1}, "min_iou must lie in"),
        ({"max_iou": 1.5}, "max_iou must lie in"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UniformAssigner(**options)


def test_the_overlap_that_ignores_is_torchvisions_iou_to_the_last_bit():
    from torchvision.ops import box_iou
    from vfnet_yolof.modeling.assigners.uniform import _best_iou

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, generator=generator) * 100
    boxes = torch.cat([corners, corners + torch.rand(300, 2, generator=generator) * 30], 1)
    boxes[5] = boxes[4]
    boxes[6, 2:] = boxes[6, :2] + 1e-3
    assert torch.equal(
        _best_iou(boxes[:100], boxes[100:]), box_iou(boxes[:100], boxes[100:]).amax(0)
    )
    assert torch.equal(_best_iou(boxes[:8], boxes[:8]), box_iou(boxes[:8], boxes[:8]).amax(0))
