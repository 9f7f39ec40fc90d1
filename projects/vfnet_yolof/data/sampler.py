"""Batches of sample keys as a pure function of (seed, iteration)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler


class SampleKey(NamedTuple):
    """What a loader worker needs to make one sample, whoever runs it and whenever."""

    index: int  # into the data set
    seed: int  # for everything random in the mapper, uint32


class GroupedBatchSampler(Sampler[list[SampleKey]]):
    """Infinite batches whose images belong to one group (wide or tall), the same on every restart.

    An epoch is a permutation drawn from ``(seed, epoch)``. Each group of it is cut into total
    batches, a last incomplete one being filled up from the group's own beginning, and the batches
    are shuffled; every rank takes its slice of each. So a group smaller than the total batch is
    repeated within that batch, as the group sampler of the reference implementation does.

    Iterating yields this rank's ``list[SampleKey]``, endlessly, from the iteration that
    :meth:`set_start_iteration` names.
    """

    def __init__(
        self,
        num_images: int,
        total_batch_size: int,
        *,
        seed: int,
        groups: Sequence[int] | np.ndarray | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """groups: (num_images,) int group of every image, None for one group of all.

        rank, world_size: None asks the process group that is running.

        Raises:
            ValueError: no images, a total batch that the ranks cannot share equally, or a number
                of groups that is not `num_images`.
        """
        self.rank = comm.get_rank() if rank is None else rank
        self.world_size = comm.get_world_size() if world_size is None else world_size
        if num_images <= 0:
            raise ValueError("The training set is empty: no image is left to draw batches from.")
        if total_batch_size <= 0 or total_batch_size % self.world_size:
            raise ValueError(
                f"total_batch_size={total_batch_size} cannot be shared equally by "
                f"{self.world_size} process(es); choose a positive multiple of {self.world_size}."
            )
        if seed < 0:
            raise ValueError(f"seed={seed} must not be negative.")
        labels = np.zeros(num_images, dtype=np.int64) if groups is None else np.asarray(groups)
        if labels.shape != (num_images,):
            raise ValueError(f"groups has shape {labels.shape}, expected ({num_images},).")
        self.num_images = num_images
        self.total_batch_size = total_batch_size
        self.batch_size = total_batch_size // self.world_size
        self.seed = seed
        self._groups = labels
        self._group_ids, sizes = np.unique(labels, return_counts=True)
        self._iterations_per_epoch = int((-(-sizes // total_batch_size)).sum())
        self._start = 0

    @property
    def iterations_per_epoch(self) -> int:
        return self._iterations_per_epoch

    def set_start_iteration(self, iteration: int) -> None:
        """The next ``iter()`` begins with the batch of this iteration (0 is the first)."""
        if iteration < 0:
            raise ValueError(f"The start iteration must not be negative, got {iteration}.")
        self._start = int(iteration)

    def epoch_batches(self, epoch: int) -> np.ndarray:
        """(iterations_per_epoch, total_batch_size) int64 data set indices of one epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.num_images)
        order_groups = self._groups[order]
        batches = []
        for group in self._group_ids.tolist():
            members = order[order_groups == group]
            count = -(-len(members) // self.total_batch_size)
            padded = np.resize(members, count * self.total_batch_size)  # repeats from the start
            batches.append(padded.reshape(count, self.total_batch_size))
        return rng.permutation(np.concatenate(batches))

    def sample_seeds(self, iteration: int) -> np.ndarray:
        """(total_batch_size,) uint32: one seed per position of the total batch."""
        source = np.random.SeedSequence((self.seed, iteration))
        return source.generate_state(self.total_batch_size, np.uint32)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        iteration = self._start
        while True:
            epoch, offset = divmod(iteration, self._iterations_per_epoch)
            for batch in self.epoch_batches(epoch)[offset:]:
                seeds = self.sample_seeds(iteration)
                yield [
                    SampleKey(index, seed)
                    for index, seed in zip(batch[mine].tolist(), seeds[mine].tolist(), strict=True)
                ]
                iteration += 1
