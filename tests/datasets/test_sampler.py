from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vfnet_yolof.data import GroupedBatchSampler

GROUPS = [0] * 7 + [1] * 4


def sampler(seed: int = 5, start: int = 0, **kwargs) -> GroupedBatchSampler:
    made = GroupedBatchSampler(11, 4, **({"seed": seed, "groups": GROUPS} | kwargs))
    made.set_start_iteration(start)
    return made


def take(source: GroupedBatchSampler, count: int) -> list:
    return list(islice(source, count))


def test_a_run_is_a_function_of_the_seed():
    assert take(sampler(), 20) == take(sampler(), 20)
    assert take(sampler(), 20) != take(sampler(seed=6), 20)


@pytest.mark.parametrize("start", [1, 2, 3, 4, 5, 8, 11, 13])
def test_starting_later_gives_the_tail_of_the_full_run(start):
    assert take(sampler(start=start), 20 - start) == take(sampler(), 20)[start:]


def test_a_group_makes_as_many_batches_as_it_fills():
    assert sampler().iterations_per_epoch == 11 / 4
    source = sampler()
    assert [len(source.epoch_batches(epoch)) for epoch in range(4)] == [2, 3, 3, 3]
    for epoch in range(8):
        batches = source.epoch_batches(epoch).tolist()
        mixed = [batch for batch in batches if len({GROUPS[i] for i in batch}) == 2]
        assert len(mixed) <= 1
        for batch in mixed:  # processes that share it get wide and tall ones apart
            assert [GROUPS[i] for i in batch] == sorted(GROUPS[i] for i in batch)


def test_a_rare_shape_is_as_frequent_as_its_images():
    """One tall image among 199 wide ones, 64 to a batch: a 200th of the samples."""
    source = GroupedBatchSampler(200, 64, seed=0, groups=[0] * 199 + [1])
    counts = np.bincount(
        np.concatenate([source.epoch_batches(epoch).ravel() for epoch in range(64)]), minlength=200
    )
    assert counts.tolist() == [64] * 200
    first = np.concatenate([source.epoch_batches(epoch).ravel() for epoch in range(12)])
    assert 11 <= (first == 199).sum() <= 12  # nor does it wait for 64 of its kind


@settings(max_examples=150, derandomize=True, deadline=None)
@given(data=st.data())
def test_every_image_is_seen_equally_often(data):
    """For any mix of shapes and any batch, more images than a batch or fewer."""
    groups = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=30), label="groups")
    size = data.draw(st.integers(1, 40), label="total batch")
    source = GroupedBatchSampler(
        len(groups), size, seed=data.draw(st.integers(0, 9), label="seed"), groups=groups
    )
    seen = np.zeros(len(groups), np.int64)
    mixed_at_most = len(set(groups)) - 1
    for epoch in range(6):
        batches = source.epoch_batches(epoch)
        seen += np.bincount(batches.ravel(), minlength=len(groups))
        assert seen.sum() == (epoch + 1) * len(groups) // size * size
        assert seen.max() - seen.min() <= 1
        assert sum(len({groups[i] for i in b}) > 1 for b in batches.tolist()) <= mixed_at_most
    whole = take(source, 9)
    start = data.draw(st.integers(0, 8), label="start")
    source.set_start_iteration(start)
    assert take(source, 9 - start) == whole[start:]


def test_epochs_and_batch_order_differ():
    epochs = [sampler().epoch_batches(e).tolist() for e in range(6)]
    assert len({str(e) for e in epochs}) == 6
    assert len({next((k for k, b in enumerate(e) if max(b) < 7), None) for e in epochs}) > 1


def test_ranks_share_each_total_batch():
    whole = take(sampler(), 9)
    parts = [take(sampler(rank=r, world_size=2), 9) for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_every_sample_has_a_seed_of_its_own():
    keys = [key for batch in take(sampler(), 300) for key in batch]
    assert len({key.seed for key in keys}) == len(keys)
    assert all(0 <= key.seed < 2**32 for key in keys)


def test_without_groups_batches_mix():
    mixed = sampler(groups=None)
    batches = [b for epoch in range(4) for b in mixed.epoch_batches(epoch).tolist()]
    assert sum(len({GROUPS[i] for i in b}) == 2 for b in batches) > 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0, "total_batch_size": 4}, "empty"),
        ({"num_images": 5, "total_batch_size": 5}, "total_batch_size=5 .* 2 process"),
        ({"num_images": 5, "total_batch_size": 0}, "total_batch_size=0"),
        ({"num_images": 5, "total_batch_size": 4, "groups": [0, 1]}, r"\(2,\), expected \(5,\)"),
        ({"num_images": 5, "total_batch_size": 4, "seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupedBatchSampler(**({"seed": 0, "rank": 0, "world_size": 2} | arguments))
    with pytest.raises(ValueError, match="-2"):
        sampler(start=-2)
