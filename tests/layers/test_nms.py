"""NMS keeps to each class, however many there are and wherever the boxes lie.

Every kind is held to its definition in float64, class after class.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from vfnet_yolof.layers.nms import HardNMS, boxes_apart
from vfnet_yolof.layers.soft_nms import SoftNMS

KINDS = {
    "hard": HardNMS(0.5),
    "hard, class-agnostic": HardNMS(0.5, class_agnostic=True),
    "linear": SoftNMS("linear", iou_threshold=0.5, min_score=0.01),
    "gaussian": SoftNMS("gaussian", sigma=0.5, min_score=0.01),
    "linear, class-agnostic": SoftNMS("linear", 0.5, min_score=0.01, class_agnostic=True),
}


def iou_in_float64(boxes: Tensor) -> np.ndarray:
    """(P, P); 0 where two boxes have no area."""
    x1, y1, x2, y2 = boxes.double().numpy().T
    width = np.minimum.outer(x2, x2) - np.maximum.outer(x1, x1)
    height = np.minimum.outer(y2, y2) - np.maximum.outer(y1, y1)
    shared = width.clip(min=0) * height.clip(min=0)
    area = (x2 - x1) * (y2 - y1)
    return shared / np.maximum(np.add.outer(area, area) - shared, 1e-300)


def literal(
    nms: HardNMS | SoftNMS, boxes: Tensor, scores: Tensor, classes: Tensor
) -> list[tuple[float, int]]:
    """(score, index) of all that is kept, best first: the best that is left, again and again."""
    iou = iou_in_float64(boxes)
    numbers = np.zeros(len(classes)) if nms.class_agnostic else classes.numpy()
    left = scores.double().numpy().copy()
    kept = []
    while len(left) and left.max() > 0:
        best = int(left.argmax())
        kept.append((float(left[best]), best))
        overlap = np.where(numbers == numbers[best], iou[best], 0.0)
        if isinstance(nms, HardNMS):
            left[overlap > nms.iou_threshold] = 0
        elif nms.method == "linear":
            left *= np.where(overlap >= nms.iou_threshold, 1 - overlap, 1)
        else:
            left *= np.exp(-(overlap**2) / nms.sigma)
        left[best] = 0
        if isinstance(nms, SoftNMS):
            left[left < nms.min_score] = 0
    return kept


def clusters(
    count: int, num_classes: int, reach: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes of 4 to 40 px around a few places up to ``reach`` px from 0, also below 0."""
    generator = torch.Generator().manual_seed(seed)
    places = (torch.rand(max(1, count // 8), 2, generator=generator) * 2 - 1) * reach
    which = torch.randint(len(places), (count,), generator=generator)
    corners = places[which] + torch.randn(count, 2, generator=generator) * 3
    sides = torch.rand(count, 2, generator=generator) * 36 + 4
    # few classes at each place, the highest numbers among them
    classes = num_classes - 1 - torch.randint(min(3, num_classes), (count,), generator=generator)
    classes[::5] = torch.randint(num_classes, (len(classes[::5]),), generator=generator)
    # scores apart from each other, so that rounding does not decide which comes first
    scores = (torch.randperm(count, generator=generator) + 1) / (count + 1)
    return torch.cat([corners, corners + sides], dim=1), scores, classes


def check(
    nms: HardNMS | SoftNMS, boxes: Tensor, scores: Tensor, classes: Tensor, limit: int
) -> None:
    want = literal(nms, boxes, scores, classes)
    keep, kept_scores = nms(boxes, scores, classes, limit)
    assert len(keep) == len(kept_scores) == min(limit, len(want))
    want_scores = [score for score, _ in want[:limit]]
    assert kept_scores.tolist() == pytest.approx(want_scores, rel=1e-4)
    if isinstance(nms, HardNMS):
        assert keep.tolist() == [index for _, index in want[:limit]]
        return
    by_index = {index: score for score, index in want}  # lowered scores may come close
    assert [by_index[i] for i in keep.tolist()] == pytest.approx(kept_scores.tolist(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    count=st.sampled_from([1, 7, 60, 150]),
    num_classes=st.sampled_from([1, 3, 80, 1203, 100_000]),
    reach=st.sampled_from([40.0, 1333.0, 30_000.0, 500_000.0]),
    limit=st.sampled_from([1, 20, 1000]),
)
def test_each_class_by_itself(
    kind: str, seed: int, count: int, num_classes: int, reach: float, limit: int
) -> None:
    check(KINDS[kind], *clusters(count, num_classes, reach, seed), limit)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_below_0_are_not_those_of_the_class_before(kind: str) -> None:
    """Offsets of class times (largest coordinate + 1) would lay the second upon the first."""
    boxes = torch.tensor([[61.0, 0, 100, 40], [-40.0, -101, -1, -61]])
    scores, classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
    assert KINDS[kind](boxes, scores, classes, 10)[0].tolist() == [0, 1]
    check(KINDS[kind], boxes, scores, classes, 10)


@pytest.mark.parametrize("far", [1e6, 1e9, 1e30, math.inf, math.nan])
def test_one_box_far_away_changes_nothing_for_the_others(far: float) -> None:
    boxes, scores, classes = clusters(100, 80, 500.0, seed=1)
    alone, _ = HardNMS(0.5)(boxes, scores, classes, 1000)
    with_it, _ = HardNMS(0.5)(
        torch.cat([boxes, torch.tensor([[0.0, 0, far, far]])]),
        torch.cat([scores, torch.tensor([1e-6])]),
        torch.cat([classes, torch.tensor([7])]),
        1000,
    )
    assert with_it.tolist() == [*alone.tolist(), 100]


@pytest.mark.parametrize("limit", [1, 100, 1500, 5000])
@pytest.mark.parametrize("kind", ["hard", "hard, class-agnostic"])
def test_more_boxes_than_are_looked_at_first(kind: str, limit: int) -> None:
    check(KINDS[kind], *clusters(2500, 40, 400.0, seed=limit), limit)


def test_a_class_of_duplicates_does_not_hide_the_others() -> None:
    """The best 3,000 boxes are one object: others must be looked for behind them."""
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(3001, 1)
    boxes[-1] += 20
    scores = torch.linspace(1, 0.5, 3001)
    keep, _ = HardNMS(0.5)(boxes, scores, torch.zeros(3001, dtype=torch.int64), 2)
    assert keep.tolist() == [0, 3000]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.9])
def test_an_overlap_of_just_the_threshold_is_not_more_than_it(threshold: float) -> None:
    """And 1/200 more is, in every class and place."""
    shared = round(threshold * 200)
    for offset in (0.0, 1000.0, -300.0):
        for number in (0, 79, 1202):
            for height, kept in ((shared, 2), (shared + 1, 1)):
                boxes = torch.tensor([[0.0, 0, 7, 200], [0.0, 0, 7, height]]) + offset
                classes = torch.tensor([number] * 2)
                keep, _ = HardNMS(threshold)(boxes, torch.tensor([0.9, 0.8]), classes, 10)
                assert len(keep) == kept, (offset, number)


def test_of_equal_scores_the_first_comes_first() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 10], [20, 20, 29, 29]]).repeat(700, 1)
    scores, classes = torch.full((2100,), 0.5), torch.arange(2100) % 3 // 2
    assert HardNMS(0.5)(boxes, scores, classes, 10)[0].tolist() == [0, 2]


def test_offsets_are_exact_or_none_are_given() -> None:
    """Differences of float32 coordinates stay what they were, to the last bit."""
    boxes, _, classes = clusters(300, 1203, 30_000.0, seed=5)
    boxes = boxes.double()
    apart = boxes_apart(boxes, classes)
    assert torch.equal(apart[:, 2:] - apart[:, :2], boxes[:, 2:] - boxes[:, :2])
    same = classes[:, None] == classes
    gap = apart[:, None, 0] - apart[None, :, 2]  # of the left side to another box's right side
    apart_by_one = (gap >= 1) | (gap.T >= 1)
    assert (same | apart_by_one).all()
    assert boxes_apart(boxes * 2, classes) is None
    assert boxes_apart(boxes * math.inf, classes) is None


def test_nothing_to_do() -> None:
    boxes, scores, classes = clusters(5, 2, 40.0, seed=0)
    for nms in KINDS.values():
        assert len(nms(boxes[:0], scores[:0], classes[:0], 10)[0]) == 0
        assert len(nms(boxes, scores, classes, 0)[0]) == 0


def test_half_precision_is_compared_as_it_is() -> None:
    """Scores keep their type; boxes lose nothing further."""
    boxes, scores, classes = clusters(60, 80, 500.0, seed=2)
    boxes, scores = boxes.bfloat16(), scores.bfloat16()
    keep, kept_scores = HardNMS(0.5)(boxes, scores, classes, 100)
    assert kept_scores.dtype == torch.bfloat16
    assert keep.tolist() == [i for _, i in literal(HardNMS(0.5), boxes, scores, classes)]
