"""The rules that uniform matching is compared with, against literal versions of them."""

import itertools

import pytest
import reference
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from vfnet_yolof.modeling.assigners import (
    ATSSAssigner,
    MaxIoUAssigner,
    UniformAssigner,
)
from vfnet_yolof.modeling.assigners.hungarian import HungarianAssigner

SIDES = [8, 16, 32]
LEVEL_SIZES = [16 * len(SIDES)]


def make_anchors(cells: int = 4) -> Tensor:
    """Three squares at each of 4 x 4 locations, 16 pixels apart: (48, 4)."""
    generator = DefaultAnchorGenerator(sizes=[SIDES], aspect_ratios=[1.0], strides=[16], offset=0.0)
    return generator([torch.zeros(1, 1, cells, cells)])[0].tensor


ANCHORS = make_anchors()


@st.composite
def box(draw: st.DrawFn) -> list[float]:
    """xyxy in halves of a pixel, from one pixel on, also beyond all anchors."""
    x, y = (draw(st.integers(-40, 200)) / 2 for _ in range(2))
    width, height = (draw(st.integers(2, 120)) / 2 for _ in range(2))
    return [x, y, x + width, y + height]


BOXES = st.lists(box(), max_size=5)


def as_tensor(boxes: list[list[float]]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def literal_max_iou(
    anchors: list[list[float]], boxes: list[list[float]], low: float, high: float
) -> tuple[dict[int, int], set[int]]:
    """{anchor: box} and the ignored anchors, one decision after the other."""
    ious = [[reference.iou(anchor, b) for b in boxes] for anchor in anchors]
    # Where float32 cannot tell the two sides of a comparison, either is right.
    for numbers in [*ious, *zip(*ious, strict=True)]:
        assume(all(abs(x - bound) > 1e-6 for x in numbers for bound in (low, high)))
        assume(all(x == max(numbers) or x < max(numbers) - 1e-6 for x in numbers))
    pairs, ignored = {}, set()
    for i, row in enumerate(ious):
        best = max(row, default=0.0)
        if best >= high:
            pairs[i] = row.index(best)
        elif best >= low:
            ignored.add(i)
    for j in range(len(boxes)):
        most = max(row[j] for row in ious)
        for i, row in enumerate(ious):
            if most > 0 and row[j] == most:
                pairs[i] = row.index(max(row))
                ignored.discard(i)
    return pairs, ignored


class TestMaxIoU:
    @settings(max_examples=30)
    @given(boxes=BOXES, max_pairs=st.sampled_from([20, 60, 10**6]))
    def test_equals_the_literal_rule(self, boxes, max_pairs: int) -> None:
        pairs, ignored = literal_max_iou(ANCHORS.tolist(), boxes, 0.4, 0.5)
        got = MaxIoUAssigner(max_pairs=max_pairs)(ANCHORS, as_tensor(boxes))
        assert dict(zip(got.anchor_idx.tolist(), got.gt_idx.tolist(), strict=True)) == pairs
        assert set(got.ignored_anchors.nonzero()[:, 0].tolist()) == ignored
        assert not got.ignored_pairs.any()

    @given(boxes=BOXES.filter(len), low_quality=st.booleans())
    def test_equals_detectron2s_matcher(self, boxes, low_quality: bool) -> None:
        iou = pairwise_iou(Boxes(as_tensor(boxes)), Boxes(ANCHORS))
        assume((iou.amax(1) > 0).all())
        matcher = Matcher([0.3, 0.6], [0, -1, 1], allow_low_quality_matches=low_quality)
        idx, label = matcher(iou)
        got = MaxIoUAssigner(0.3, 0.6, low_quality, max_pairs=100)(ANCHORS, as_tensor(boxes))
        assert torch.equal(got.anchor_idx, (label == 1).nonzero()[:, 0])
        assert torch.equal(got.gt_idx, idx[label == 1])
        assert torch.equal(got.ignored_anchors, label == -1)

    def test_a_box_that_no_anchor_touches_matches_none(self) -> None:
        far = as_tensor([[500.0, 500, 520, 520]])
        assert len(MaxIoUAssigner()(ANCHORS, far).anchor_idx) == 0
        on_an_anchor = ANCHORS[7:8]
        got = MaxIoUAssigner()(ANCHORS, torch.cat([far, on_an_anchor]))
        assert (got.anchor_idx.tolist(), got.gt_idx.tolist()) == ([7], [1])

    def test_low_quality_matches_can_be_turned_off(self) -> None:
        thin = as_tensor([[0.0, 0, 30, 2]])
        assert len(MaxIoUAssigner()(ANCHORS, thin).anchor_idx) > 0
        assert len(MaxIoUAssigner(low_quality_matches=False)(ANCHORS, thin).anchor_idx) == 0

    @pytest.mark.parametrize(("low", "high"), [(0.6, 0.5), (0.0, 0.5), (0.4, 1.1)])
    def test_thresholds_are_checked(self, low: float, high: float) -> None:
        with pytest.raises(ValueError, match="thresholds"):
            MaxIoUAssigner(low, high)

    def test_many_boxes_in_little_memory(self) -> None:
        """2,000 boxes, and 20,000 pairs at once of 480,000."""
        corner = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) * 50
        boxes = torch.cat([corner, corner + 4 + corner.flip(1) / 3], dim=1)
        anchors = make_anchors(9)[:240]
        pieces = list(MaxIoUAssigner(max_pairs=20_000)._ious(boxes, anchors, None))
        assert max(iou.numel() for iou in pieces) <= 20_000
        small = MaxIoUAssigner(max_pairs=20_000)(anchors, boxes)
        large = MaxIoUAssigner(max_pairs=10**9)(anchors, boxes)
        assert all(map(torch.equal, reference.parts(small), reference.parts(large)))
        assert len(small.anchor_idx) > 20


class TestAnchorATSS:
    @given(boxes=BOXES, topk=st.sampled_from([1, 4, 9, 15]))
    def test_equals_the_literal_rule_on_anchors(self, boxes, topk: int) -> None:
        want = reference.atss(ANCHORS.tolist(), boxes, LEVEL_SIZES, topk)
        assume(want.closest_call > 1e-6)
        got = ATSSAssigner(topk)(ANCHORS, as_tensor(boxes), level_sizes=LEVEL_SIZES)
        assigned = {i: j for i, j in enumerate(want.assigned) if j >= 0}
        assert dict(zip(got.anchor_idx.tolist(), got.gt_idx.tolist(), strict=True)) == assigned
        assert not got.ignored_anchors.any()

    @pytest.mark.parametrize(("topk", "reachable"), [(3, {0}), (6, {0, 1}), (12, {0, 1, 4, 5})])
    def test_k_counts_anchors_three_at_each_location(self, topk: int, reachable: set) -> None:
        """The box is nearest to location 0, then to 1, then to 4, then to 5."""
        boxes = as_tensor([[-20.0, -21, 34, 33]])  # centre (7, 6)
        got = ATSSAssigner(topk)(ANCHORS, boxes, level_sizes=LEVEL_SIZES)
        locations = set((got.anchor_idx // len(SIDES)).tolist())
        assert locations <= reachable
        # The largest anchor of each location overlaps most, and alone passes the threshold.
        assert {int(i) % len(SIDES) for i in got.anchor_idx} == {2}

    def test_no_boxes(self) -> None:
        got = ATSSAssigner()(ANCHORS, torch.zeros(0, 4), level_sizes=LEVEL_SIZES)
        assert len(got.anchor_idx) == 0
        assert got.ignored_anchors.shape == (48,)


def predictions(seed: int, number: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Boxes (R, 4) and logits (R, K)."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator) * 80
    size = 4 + torch.rand(number, 2, generator=generator) * 60
    logits = torch.randn(number, classes, generator=generator)
    return torch.cat([corner, corner + size], dim=1), logits


def match(assigner: HungarianAssigner, boxes: Tensor, classes: Tensor, seed: int, number: int = 6):
    pred_boxes, pred_logits = predictions(seed, number)
    return assigner(
        torch.zeros(number, 4),
        boxes,
        pred_boxes=pred_boxes,
        pred_logits=pred_logits,
        gt_classes=classes,
        level_sizes=[number],
    )


class TestHungarian:
    @given(boxes=BOXES, seed=st.integers(0, 1000))
    def test_no_other_assignment_is_cheaper(self, boxes, seed: int) -> None:
        assigner = HungarianAssigner(max_pairs=7)
        targets, classes = as_tensor(boxes), torch.arange(len(boxes)) % 3
        got = match(assigner, targets, classes, seed)
        assert got.gt_idx.tolist() == list(range(len(boxes)))
        assert len(set(got.anchor_idx.tolist())) == len(boxes)
        assert not got.ignored_anchors.any()
        assert not got.ignored_pairs.any()
        cost = assigner.cost(targets, classes, *predictions(seed)).double()
        cheapest = min(
            sum(cost[i, j].item() for i, j in enumerate(chosen))
            for chosen in itertools.permutations(range(6), len(boxes))
        )
        assert cost[got.gt_idx, got.anchor_idx].sum().item() == pytest.approx(cheapest, abs=1e-6)

    def test_cost_by_hand(self) -> None:
        """IoU 1/3, no empty part in the hull; class 1 has probability 3/4; centres 50 px apart."""
        boxes, pred = as_tensor([[0.0, 0, 100, 100]]), as_tensor([[50.0, 0, 150, 100]])
        logits = torch.tensor([[5.0, 3.0]]).log()
        cost = HungarianAssigner(box_scale=100.0).cost(boxes, torch.tensor([1]), pred, logits)
        assert cost.item() == pytest.approx(-3 / 4 + 5 * 0.5 - 2 / 3)
        weights = HungarianAssigner(2.0, 3.0, 1.0, box_scale=500.0)
        cost = weights.cost(boxes, torch.tensor([1]), pred, logits)
        assert cost.item() == pytest.approx(-2 * 3 / 4 + 3 * 0.1 - 1 / 3)

    def test_more_boxes_than_predictions(self) -> None:
        boxes, _ = predictions(5, number=9)
        got = match(HungarianAssigner(), boxes, torch.zeros(9, dtype=torch.int64), seed=6)
        assert sorted(got.anchor_idx.tolist()) == list(range(6))
        assert len(set(got.gt_idx.tolist())) == 6

    def test_a_perfect_prediction_is_taken(self) -> None:
        boxes, logits = predictions(3)
        got = match(HungarianAssigner(), boxes[[4, 1]], logits[[4, 1]].argmax(1), seed=3)
        assert got.anchor_idx.tolist() == [4, 1]

    def test_predictions_that_are_not_finite_are_refused(self) -> None:
        boxes, logits = predictions(3)
        with pytest.raises(FloatingPointError, match="not finite"):
            HungarianAssigner()(
                boxes,
                boxes[:2],
                pred_boxes=boxes,
                pred_logits=logits * torch.nan,
                gt_classes=torch.tensor([0, 1]),
            )


@pytest.mark.parametrize("boxes", [[], [[10.0, 10, 11, 11]]], ids=["no box", "one pixel"])
@pytest.mark.parametrize(
    "assigner", [MaxIoUAssigner(), ATSSAssigner(), HungarianAssigner()], ids=type
)
def test_matches_label_every_anchor(assigner, boxes) -> None:
    """One class, which positives get; 1 is background."""
    targets, classes = as_tensor(boxes), torch.zeros(len(boxes), dtype=torch.int64)
    got = assigner(
        ANCHORS,
        targets,
        pred_boxes=ANCHORS + 1,
        pred_logits=torch.zeros(48, 1),
        gt_classes=classes,
        level_sizes=LEVEL_SIZES,
    )
    labels = got.labels(classes, num_classes=1)
    assert labels.shape == (48,)
    assert (labels == 0).sum() == len(got.anchor_idx)
    assert set(labels.tolist()) <= ({0, 1, -1} if boxes else {1})


@pytest.mark.parametrize("boxes", [[], [[10.0, 10, 30, 30]]], ids=["no box", "a box"])
@pytest.mark.parametrize(
    "assigner",
    [MaxIoUAssigner(), ATSSAssigner(), HungarianAssigner(), UniformAssigner()],
    ids=type,
)
def test_without_anchors_there_is_no_pair(assigner, boxes) -> None:
    none = torch.zeros(0, 4)
    got = assigner(
        none,
        as_tensor(boxes),
        pred_boxes=none,
        pred_logits=torch.zeros(0, 1),
        gt_classes=torch.zeros(len(boxes), dtype=torch.int64),
        level_sizes=[0],
    )
    assert [x.shape for x in reference.parts(got)] == [(0,)] * 4
