"""Soft-NMS against the reference's numbers and against the definition written as a loop."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou
from vfnet_yolof.layers.soft_nms import SoftNMS

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "units" / "nms.npz")


def literal(
    boxes: Tensor, scores: Tensor, method: str, threshold: float, sigma: float, min_score: float
) -> list[tuple[float, int]]:
    """(score, index) of the boxes of one class: Bodla et al., figure 2."""
    left = {i: s for i, s in enumerate(scores.tolist()) if s >= min_score}
    iou = box_iou(boxes, boxes).tolist()
    kept = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        kept.append((left.pop(best), best))
        for i in left:
            overlap = iou[best][i]
            if method == "gaussian":
                left[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                left[i] *= 1 - overlap
        left = {i: s for i, s in left.items() if s >= min_score}
    return kept


def literal_of_classes(
    boxes: Tensor, scores: Tensor, classes: Tensor, **options
) -> list[tuple[float, int]]:
    found = []
    for number in classes.unique():
        rows = (classes == number).nonzero()[:, 0]
        found += [(s, int(rows[i])) for s, i in literal(boxes[rows], scores[rows], **options)]
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))


def random_boxes(n: int, num_classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in clusters, as a detector's candidates are."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(max(1, n // 8), 4, generator=generator) * 80
    which = torch.randint(len(centers), (n,), generator=generator)
    jittered = centers[which] + torch.randn(n, 4, generator=generator) * 3
    boxes = torch.cat([jittered[:, :2], jittered[:, :2] + jittered[:, 2:].abs() + 5], dim=1)
    classes = torch.randint(num_classes, (n,), generator=generator)
    return boxes, torch.rand(n, generator=generator), classes


@pytest.mark.golden
@pytest.mark.parametrize("case", ["clustered72", "single", "identical_boxes", "disjoint"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("soft_linear_thr0.3_sigma0.5_min0.001", dict(iou_threshold=0.3)),
        ("soft_linear_thr0.6_sigma0.5_min0.05", dict(iou_threshold=0.6, min_score=0.05)),
        ("soft_gaussian_thr0.3_sigma0.5_min0.001", dict(method="gaussian")),
        ("soft_gaussian_thr0.6_sigma0.5_min0.05", dict(method="gaussian", min_score=0.05)),
        ("batched_soft_linear_thr0.6_min0.05", dict(iou_threshold=0.6, min_score=0.05)),
        ("batched_soft_gaussian_sigma0.5_min0.05", dict(method="gaussian", min_score=0.05)),
    ],
)
def test_equals_the_reference(case: str, name: str, options: dict) -> None:
    boxes, scores, labels = (
        torch.from_numpy(GOLDEN[f"{case}/{x}"]) for x in ("boxes", "scores", "labels")
    )
    nms = SoftNMS(**options, class_agnostic=not name.startswith("batched"))
    keep, lowered = nms(boxes, scores, labels, max_detections=100)
    want = GOLDEN[f"{case}/{name}/dets"]
    assert keep.tolist() == GOLDEN[f"{case}/{name}/keep"].tolist()
    assert np.allclose(lowered.numpy(), want[:, 4], rtol=1e-5, atol=0)
    assert np.allclose(boxes[keep].numpy(), want[:, :4], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("limit", [1, 30, 500])
@pytest.mark.parametrize(("n", "num_classes"), [(200, 1), (300, 7), (60, 40)])
def test_equals_the_loop(method: str, limit: int, n: int, num_classes: int) -> None:
    """The limit ends the search early without changing what is found."""
    boxes, scores, classes = random_boxes(n, num_classes, seed=n + limit)
    options = dict(iou_threshold=0.4, sigma=0.3, min_score=0.01)
    want = literal_of_classes(
        boxes, scores, classes, method=method, threshold=0.4, sigma=0.3, min_score=0.01
    )
    keep, lowered = SoftNMS(method, **options)(boxes, scores, classes, limit)
    assert keep.tolist() == [i for _, i in want[:limit]]
    assert lowered.tolist() == pytest.approx([s for s, _ in want[:limit]], rel=1e-4)
    assert len(keep) == min(limit, len(want))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40), st.sampled_from(["linear", "gaussian"]))
def test_properties(seed: int, n: int, method: str) -> None:
    boxes, scores, classes = random_boxes(n, 3, seed)
    keep, lowered = SoftNMS(method, min_score=0.02)(boxes, scores, classes, 100)
    assert len(set(keep.tolist())) == len(keep)
    assert (lowered <= scores[keep]).all()
    assert (lowered >= 0.02).all()
    assert (lowered[1:] <= lowered[:-1]).all()
    for number in classes.unique():  # the best of each class keeps its score
        best = scores[classes == number].max()
        assert best < 0.02 or best in lowered


def test_class_agnostic_is_one_class() -> None:
    boxes, scores, classes = random_boxes(100, 5, seed=3)
    agnostic = SoftNMS(class_agnostic=True)(boxes, scores, classes, 100)
    one_class = SoftNMS()(boxes, scores, torch.zeros_like(classes), 100)
    assert all(torch.equal(a, b) for a, b in zip(agnostic, one_class, strict=True))
    assert len(agnostic[0]) < len(SoftNMS()(boxes, scores, classes, 100)[0])


def test_ties_and_boxes_without_area() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 20, 20], [20, 20, 20, 20]])
    scores, classes = torch.full((4,), 0.5), torch.zeros(4, dtype=torch.int64)
    keep, lowered = SoftNMS("gaussian")(boxes, scores, classes, 10)
    assert keep.tolist() == [0, 2, 3, 1]
    assert lowered.tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5 * math.exp(-2)])
    # the copy's score becomes 0, and with it the box goes, whatever the minimum
    assert SoftNMS("linear", min_score=0.0)(boxes, scores, classes, 10)[0].tolist() == [0, 2, 3]


def test_nothing_to_do() -> None:
    boxes, scores, classes = random_boxes(5, 2, seed=0)
    for keep, lowered in (
        SoftNMS()(boxes[:0], scores[:0], classes[:0], 10),
        SoftNMS()(boxes, scores, classes, 0),
        SoftNMS(min_score=1.0)(boxes, scores, classes, 10),
    ):
        assert keep.shape == lowered.shape == (0,)
        assert keep.dtype == torch.int64


def test_half_precision_scores_keep_their_type_and_the_input_its_values() -> None:
    boxes, scores, classes = random_boxes(50, 2, seed=1)
    before = [x.clone() for x in (boxes, scores, classes)]
    _, lowered = SoftNMS()(boxes.half(), scores.half(), classes, 10)
    assert lowered.dtype == torch.float16
    SoftNMS()(boxes, scores, classes, 10)
    assert all(torch.equal(a, b) for a, b in zip(before, (boxes, scores, classes), strict=True))


@pytest.mark.parametrize(
    "options",
    [dict(method="naive"), dict(iou_threshold=1.5), dict(sigma=0.0), dict(min_score=-0.1)],
)
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SoftNMS(**options)
