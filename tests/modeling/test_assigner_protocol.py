"""All assigners are called alike and answer alike; what a detector cannot use, it refuses."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import parts
from tiny import picture, tiny_gfl, tiny_vfnet, tiny_yolof
from torch import Tensor
from vfnet_yolof.config.yaml_files import Trust
from vfnet_yolof.modeling.assigners import (
    Assigner,
    ATSSAssigner,
    FCOSAssigner,
    Match,
    MaxIoUAssigner,
    PairMatch,
    SingleMatch,
    UniformAssigner,
)
from vfnet_yolof.modeling.assigners.hungarian import HungarianAssigner

ASSIGNERS = [
    ATSSAssigner(3),
    FCOSAssigner([(-1, 24), (24, 100)], 1.5, [8, 16]),
    MaxIoUAssigner(max_pairs=50),
    UniformAssigner(3, max_pairs=50),
    HungarianAssigner(),
]
each_assigner = pytest.mark.parametrize("assigner", ASSIGNERS, ids=lambda x: type(x).__name__)


def anchors_of_two_levels() -> tuple[Tensor, list[int]]:
    generator = DefaultAnchorGenerator(
        sizes=[[16], [32]], aspect_ratios=[1.0], strides=[8, 16], offset=0.5
    )
    levels = [x.tensor for x in generator([torch.zeros(1, 1, 6, 6), torch.zeros(1, 1, 3, 3)])]
    return torch.cat(levels), [len(x) for x in levels]


ANCHORS, LEVEL_SIZES = anchors_of_two_levels()


def ask(assigner: Assigner, seed: int, num_boxes: int, mask: Tensor | None, drop: bool) -> Match:
    """With random boxes and predictions; anchors outside of ``mask`` dropped, or not valid."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num_boxes, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 4 + torch.rand(num_boxes, 2, generator=generator) * 40], 1)
    predicted = ANCHORS + 4 * torch.randn(ANCHORS.shape, generator=generator)
    logits = torch.randn(len(ANCHORS), 3, generator=generator)
    keep = mask if drop and mask is not None else slice(None)
    sizes = [int(x.sum()) for x in mask.split(LEVEL_SIZES)] if drop else LEVEL_SIZES
    return assigner(
        ANCHORS[keep],
        boxes,
        level_sizes=sizes,
        valid=None if drop else mask,
        pred_boxes=predicted[keep],
        pred_logits=logits[keep],
        gt_classes=torch.arange(num_boxes) % 3,
    )


@each_assigner
@settings(max_examples=25)
@given(seed=st.integers(0, 999), num_boxes=st.integers(0, 5), share=st.sampled_from([0.1, 0.7, 1]))
def test_anchors_that_are_not_valid_are_as_if_they_were_not_there(
    assigner: Assigner, seed: int, num_boxes: int, share: float
) -> None:
    valid = torch.rand(len(ANCHORS), generator=torch.Generator().manual_seed(seed)) < share
    got = ask(assigner, seed, num_boxes, valid, drop=False)
    alone = ask(assigner, seed, num_boxes, valid, drop=True)
    rows = valid.nonzero()[:, 0]
    assert torch.equal(got.anchor_idx, rows[alone.anchor_idx])
    assert torch.equal(got.gt_idx, alone.gt_idx)
    assert torch.equal(got.ignored_pairs, alone.ignored_pairs)
    assert torch.equal(got.ignored_anchors[valid], alone.ignored_anchors)
    assert not got.ignored_anchors[~valid].any()
    classes = torch.arange(num_boxes) % 3
    labels = got.labels(classes, 3)
    assert torch.equal(labels[valid], alone.labels(classes, 3))
    assert (labels[~valid] == 3).all()


@each_assigner
def test_all_valid_is_none_given(assigner: Assigner) -> None:
    got = ask(assigner, 1, 5, torch.ones(len(ANCHORS), dtype=torch.bool), drop=False)
    assert len(got.anchor_idx) > 0
    assert all(map(torch.equal, parts(got), parts(ask(assigner, 1, 5, None, drop=False))))


@given(seed=st.integers(0, 999), num_boxes=st.integers(0, 5))
def test_both_forms_of_a_match_label_alike(seed: int, num_boxes: int) -> None:
    single = ask(MaxIoUAssigner(), seed, num_boxes, None, drop=False)
    classes = torch.arange(num_boxes) % 3
    pairs = PairMatch(*parts(single))
    assert torch.equal(single.labels(classes, 3), pairs.labels(classes, 3))


@pytest.mark.parametrize("assigner", [UniformAssigner(), HungarianAssigner()], ids=type)
def test_what_needs_predictions_says_so(assigner: Assigner) -> None:
    with pytest.raises(ValueError, match="matching needs pred_boxes"):
        assigner(ANCHORS, ANCHORS[:2], level_sizes=LEVEL_SIZES)


@pytest.mark.parametrize(
    ("assigner", "message"),
    [
        (MaxIoUAssigner(), "ignores anchors between positives and negatives"),
        (UniformAssigner(), "uniform matching needs pred_boxes"),
    ],
)
def test_a_detector_with_one_box_for_each_location_refuses_other_rules(
    assigner: Assigner, message: str
) -> None:
    for make in (tiny_vfnet, tiny_gfl):
        with pytest.raises(ValueError, match=message):
            make(assigner=assigner)([picture()])
    match = ask(HungarianAssigner(), 0, 2, None, drop=False)
    with pytest.raises(ValueError, match="several to one"):
        match.box_of_each()


def test_a_detector_with_anchors_takes_every_rule() -> None:
    for assigner in (ATSSAssigner(), FCOSAssigner([(-1, 1000)]), *ASSIGNERS[2:]):
        losses = tiny_yolof(assigner=assigner)([picture(), picture([])])
        assert all(value.isfinite() for value in losses.values())


def test_a_single_match_answers_without_waiting_for_pairs() -> None:
    match = SingleMatch(torch.tensor([-1, 1, 0]), torch.tensor([True, False, False]))
    assert match.labels(torch.tensor([5, 7]), 9).tolist() == [-1, 7, 5]
    assert "anchor_idx" not in vars(match)
    assert (match.anchor_idx.tolist(), match.gt_idx.tolist()) == ([1, 2], [1, 0])


def test_the_name_that_saved_configurations_have_for_atss_among_anchors() -> None:
    name = "vfnet_yolof.modeling.assigners.anchor_atss.AnchorATSSAssigner"
    assert Trust().allows(name)
    assert isinstance(instantiate({"_target_": name, "topk": 15}), ATSSAssigner)
