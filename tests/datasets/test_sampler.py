from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
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


@pytest.mark.parametrize("start", [1, 3, 4, 11])
def test_starting_later_gives_the_tail_of_the_full_run(start):
    assert take(sampler(start=start), 20 - start) == take(sampler(), 20)[start:]


def test_an_epoch_has_every_image_and_no_mixed_batch():
    assert sampler().iterations_per_epoch == 2 + 1  # 7 of one group, 4 of the other, by 4
    for epoch in range(4):
        batches = sampler().epoch_batches(epoch)
        assert batches.shape == (3, 4)
        assert set(batches.ravel().tolist()) == set(range(11))
        for batch in batches:
            assert len({GROUPS[i] for i in batch.tolist()}) == 1


def test_a_group_is_filled_up_from_its_own_members():
    counts = np.bincount(sampler().epoch_batches(0).ravel(), minlength=11)
    assert sorted(counts[:7].tolist()) == [1, 1, 1, 1, 1, 1, 2]
    assert counts[7:].tolist() == [1, 1, 1, 1]
    alone = GroupedBatchSampler(5, 4, seed=0, groups=[0, 0, 0, 0, 1])
    assert [4, 4, 4, 4] in alone.epoch_batches(0).tolist()


def test_epochs_and_batch_order_differ():
    epochs = [sampler().epoch_batches(e).tolist() for e in range(6)]
    assert len({str(e) for e in epochs}) == 6
    assert len({next(k for k, b in enumerate(e) if min(b) >= 7) for e in epochs}) > 1


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
    assert mixed.iterations_per_epoch == 3
    assert any(len({GROUPS[i] for i in b}) == 2 for b in mixed.epoch_batches(0).tolist())


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
