"""Candidates, decoding and suppression against brute force."""

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from vfnet_yolof.layers.nms import HardNMS
from vfnet_yolof.modeling.postprocess import FixedCandidates, PostProcessor

SIZE = (60, 80)  # (H, W) px
LEVELS = (30, 8)  # locations


def predictions(num_classes: int, seed: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Logits (R, K), boxes (R, 4) and factors (R,) of two levels, all scores distinct.

    Some boxes leave the image, some altogether, and some have no area.
    """
    generator = torch.Generator().manual_seed(seed)
    total = sum(LEVELS) * num_classes
    logits = torch.linspace(-4.01, 2.03, total)[torch.randperm(total, generator=generator)]
    logits = list(logits.reshape(-1, num_classes).split(LEVELS))
    corner = torch.randint(-20, 85, (sum(LEVELS), 2), generator=generator)
    side = torch.randint(0, 40, (sum(LEVELS), 2), generator=generator)
    boxes = list(torch.cat([corner, corner + side], dim=1).float().split(LEVELS))
    quality = list(torch.rand(sum(LEVELS), generator=generator).split(LEVELS))
    return logits, boxes, quality


def brute_force(
    logits: list[Tensor],
    boxes: list[Tensor],
    quality: list[Tensor] | None,
    processor: PostProcessor,
) -> list[tuple[float, int, list[float], int, int]]:
    """(score, class, box, level, location) of every detection, best first."""
    found = []
    for level, rows in enumerate(logits):
        for score, location, k in reference.candidates(
            rows.tolist(), processor.candidates, processor.topk_candidates, processor.score_thresh
        ):
            if quality is not None:
                score *= quality[level][location].item()
            found.append((score, k, boxes[level][location].tolist(), level, location))
    before = processor.clip == "before_nms"
    if before:
        found = clip_and_drop(found)
    kept = reference.greedy_nms(
        [x[2] for x in found],
        [x[0] for x in found],
        [x[1] for x in found],
        processor.nms.iou_threshold,
        processor.nms.class_agnostic,
    )
    found = [found[i] for i in kept[: processor.max_detections]]
    return found if before else clip_and_drop(found)


def clip_and_drop(found: list[tuple]) -> list[tuple]:
    """Boxes inside the image, without those that have no area there."""
    height, width = SIZE
    inside = []
    for score, k, (x1, y1, x2, y2), level, location in found:
        x1, x2 = (min(max(x, 0.0), width) for x in (x1, x2))
        y1, y2 = (min(max(y, 0.0), height) for y in (y1, y2))
        if x2 > x1 and y2 > y1:
            inside.append((score, k, [x1, y1, x2, y2], level, location))
    return inside


def run(logits, boxes, quality, processor: PostProcessor):
    return processor(logits, lambda level, index: boxes[level][index], SIZE, quality)


def check(logits, boxes, quality, processor: PostProcessor) -> int:
    got = run(logits, boxes, quality, processor)
    want = brute_force(logits, boxes, quality, processor)
    instances = got.instances
    assert len(instances) == len(want)
    assert instances.image_size == SIZE
    assert instances.pred_classes.tolist() == [x[1] for x in want]
    assert instances.pred_boxes.tensor.tolist() == [x[2] for x in want]
    assert got.level.tolist() == [x[3] for x in want]
    assert got.location.tolist() == [x[4] for x in want]
    scores = torch.tensor([x[0] for x in want])
    torch.testing.assert_close(instances.scores, scores, rtol=1e-5, atol=1e-6)
    return len(want)


@given(
    seed=st.integers(0, 10**6),
    mode=st.sampled_from(["pair", "location"]),
    num_classes=st.sampled_from([1, 2, 5]),
    topk=st.sampled_from([1, 7, 25, 1000]),
    score_thresh=st.sampled_from([0.0, 0.05, 0.5]),
    with_quality=st.booleans(),
    class_agnostic=st.booleans(),
    max_detections=st.sampled_from([3, 100]),
    clip=st.sampled_from(["before_nms", "after_nms"]),
    fixed=st.booleans(),
)
def test_equals_brute_force(
    seed,
    mode,
    num_classes,
    topk,
    score_thresh,
    with_quality,
    class_agnostic,
    max_detections,
    clip,
    fixed,
) -> None:
    logits, boxes, quality = predictions(num_classes, seed)
    processor = PostProcessor(
        score_thresh=score_thresh,
        topk_candidates=topk,
        nms=HardNMS(0.5, class_agnostic),
        max_detections=max_detections,
        candidates=mode,
        clip=clip,
    )
    if fixed:
        processor = FixedCandidates.like(processor)
    check(logits, boxes, quality if with_quality else None, processor)


@pytest.mark.parametrize("mode", ["pair", "location"])
@pytest.mark.parametrize("factors", [False, True])
def test_their_number_can_be_fixed(mode: str, factors: bool) -> None:
    """As exported graphs need it: 50 a level, though the second has 8 locations of 3 classes."""
    logits, boxes, quality = predictions(3, 1)
    fixed = FixedCandidates.like(PostProcessor(topk_candidates=50, candidates=mode))
    found = fixed.candidate_boxes(
        logits, lambda level, index: boxes[level][index], SIZE, quality if factors else None
    )
    assert len(found.boxes) == 2 * 50
    assert len(found.scores) == 2 * 50 * (1 if mode == "pair" else 3)
    filled = found.scores.view(2, -1)[1, 8 * 3 :]
    assert len(filled) > 0 and filled.max() == 0


def test_every_option_changes_the_result() -> None:
    """So that the comparison above compares something."""
    counts = {}
    for name, options in {
        "plain": {},
        "location": dict(candidates="location"),
        "score_thresh": dict(score_thresh=0.5),
        "topk": dict(topk_candidates=5),
        "nms": dict(nms=HardNMS(0.1)),
        "agnostic": dict(nms=HardNMS(0.6, class_agnostic=True)),
        "max_detections": dict(max_detections=4),
    }.items():
        processor = PostProcessor(**{"topk_candidates": 40, **options})
        counts[name] = check(*predictions(5, 0)[:2], None, processor)
    assert counts["location"] > counts["plain"]
    for name in ("score_thresh", "topk", "nms", "agnostic", "max_detections"):
        assert 0 < counts[name] < counts["plain"], counts


def test_the_two_candidate_modes_differ_as_described() -> None:
    """One location good at two classes, another at one: two candidates are wanted."""
    logits = [torch.logit(torch.tensor([[0.9, 0.8], [0.7, 0.1]]))]
    boxes = [torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])]
    for mode, want in (
        ("pair", [(0, 0), (0, 1)]),
        ("location", [(0, 0), (0, 1), (1, 0), (1, 1)]),
    ):
        got = run(logits, boxes, None, PostProcessor(topk_candidates=2, candidates=mode))
        pairs = zip(got.location.tolist(), got.instances.pred_classes.tolist(), strict=True)
        assert sorted(pairs) == want


def test_quality_ranks_but_does_not_choose() -> None:
    logits = [torch.logit(torch.tensor([[0.9], [0.6], [0.5]]))]
    boxes = [torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 30, 30]])]
    quality = [torch.tensor([0.01, 1.0, 1.0])]
    got = run(logits, boxes, quality, PostProcessor(topk_candidates=2))
    # The first two are the candidates; among these the second wins.
    assert got.location.tolist() == [1]
    assert got.instances.scores.tolist() == pytest.approx([0.6])


@pytest.mark.parametrize("mode", ["pair", "location"])
def test_only_candidates_are_decoded(mode: str) -> None:
    logits, boxes, _ = predictions(3, 1)
    asked: list[tuple[int, int]] = []

    def decode(level: int, index: Tensor) -> Tensor:
        asked.append((level, len(index)))
        return boxes[level][index]

    PostProcessor(score_thresh=0.3, topk_candidates=4, candidates=mode)(logits, decode, SIZE)
    limit = 4 if mode == "pair" else 4 * 3
    assert [level for level, _ in asked] == [0, 1]
    assert all(0 < count <= limit for _, count in asked)


@pytest.mark.parametrize("mode", ["pair", "location"])
def test_nothing_above_the_threshold(mode: str) -> None:
    logits = [torch.full((6, 2), -9.0)]
    got = run(logits, [torch.rand(6, 4)], None, PostProcessor(candidates=mode))
    assert len(got.instances) == 0
    assert got.instances.pred_boxes.tensor.shape == (0, 4)
    assert got.instances.pred_classes.dtype == torch.int64
    assert got.level.shape == got.location.shape == (0,)


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    logits = [torch.tensor([[0.0], [0.1]])]
    boxes = [torch.tensor([[0.0, 0, 9, 9], [20, 20, 29, 29]])]
    assert run(logits, boxes, None, PostProcessor(score_thresh=0.5)).location.tolist() == [1]


@pytest.mark.parametrize("mode", ["pair", "location"])
def test_ties_give_as_many_distinct_detections_as_asked_for(mode: str) -> None:
    """An untrained network scores everything alike."""
    count, num_classes = 50, 2
    left = torch.arange(count).float()
    boxes = [torch.stack([left, left * 0, left + 1, left * 0 + 9], dim=1)]
    logits = [torch.zeros(count, num_classes)]
    processor = PostProcessor(topk_candidates=20, max_detections=30, candidates=mode)
    got = run(logits, boxes, None, processor)
    pairs = set(zip(got.location.tolist(), got.instances.pred_classes.tolist(), strict=True))
    assert len(pairs) == len(got.instances) == (20 if mode == "pair" else 30)
    assert set(got.instances.scores.tolist()) == {0.5}


def test_boxes_without_area_inside_the_image_are_dropped() -> None:
    logits = [torch.tensor([[3.0], [2.0], [1.0], [0.0]])]
    boxes = [torch.tensor([[5.0, 5, 5, 9], [90, 5, 99, 9], [5, 70, 9, 75], [1, 1, 3, 3]])]
    got = run(logits, boxes, None, PostProcessor())
    assert got.location.tolist() == [3]


def test_clipping_after_the_nms() -> None:
    """Two boxes that agree inside the image only, and one outside that takes a place."""
    logits = [torch.tensor([[3.0], [2.0], [1.0]])]
    boxes = [torch.tensor([[70.0, 10, 80, 20], [70, 10, 120, 20], [90, 10, 99, 20]])]
    before = run(logits, boxes, None, PostProcessor(nms=HardNMS(0.5), max_detections=3))
    assert before.location.tolist() == [0]
    after = PostProcessor(nms=HardNMS(0.5), max_detections=3, clip="after_nms")
    got = run(logits, boxes, None, after)
    assert got.location.tolist() == [0, 1]
    assert got.instances.pred_boxes.tensor.tolist() == [[70, 10, 80, 20]] * 2
    after.max_detections = 1
    assert run([logits[0][[0, 1, 2]]], [boxes[0][[2, 0, 1]]], None, after).location.tolist() == []


def test_boxes_beyond_the_border_do_not_meet_those_of_other_classes() -> None:
    """Not clipped yet, the second lies where the first does but for 100 px in x and in y."""
    logits = [torch.tensor([[3.0, -9], [-9, 2.0]])]
    boxes = [torch.tensor([[60.0, 50, 99, 90], [-40, -50, 2, 3]])]
    got = run(logits, boxes, None, PostProcessor(nms=HardNMS(0.5), clip="after_nms"))
    assert got.location.tolist() == [0, 1]
    assert got.instances.pred_boxes.tensor.tolist() == [[60, 50, 80, 60], [0, 0, 2, 3]]


def test_scores_are_float32_also_under_half_precision() -> None:
    logits = [torch.tensor([[1.0], [2.0]], dtype=torch.bfloat16)]
    boxes = [torch.tensor([[0.0, 0, 9, 9], [20, 20, 29, 29]])]
    scores = run(logits, boxes, None, PostProcessor()).instances.scores
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))])


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="candidates must be one of .* got 'anchor'"):
        PostProcessor(candidates="anchor")
    with pytest.raises(ValueError, match="clip must be one of .* got 'never'"):
        PostProcessor(clip="never")
    with pytest.raises(ValueError, match="score_thresh must lie in"):
        PostProcessor(score_thresh=1.0)
    with pytest.raises(ValueError, match="iou_threshold must lie in"):
        HardNMS(1.5)
