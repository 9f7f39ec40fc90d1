"""Batches of sample keys as a pure function of (seed, iteration)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler


@dataclass(frozen=True)
class SampleKey:
    """What a loader worker needs to make one sample, whoever runs it and whenever."""

    index: int  # into the data set
    seed: int  # for everything random in the mapper, uint32


class GroupedBatchSampler(Sampler[list[SampleKey]]):
    """Infinite batches of images of one group (wide or tall), the same on every restart.

    Each epoch is a permutation of all images, drawn from ``(seed, epoch)``. The epochs follow one
    another in a row without a gap, and every total batch takes the next images of that row. The
    batches that end within one epoch share their images by group: each group makes as many batches
    as it fills, what is left over of all groups makes mixed ones (at most one where there are two
    groups), and all are shuffled. Images at the end of an epoch that fill no batch wait for the
    next one's first.

    So after each epoch every image has been seen equally often, give or take once, whatever the
    mix of shapes and the batch. The reference implementation's group sampler instead repeats the
    images of a group until its last batch is full: of 199 wide images and a tall one in batches of
    64 it makes 20 per cent tall samples, where this one makes half a per cent.

    Every rank takes its slice of each batch. Iterating yields this rank's ``list[SampleKey]``,
    endlessly, from the iteration that :meth:`set_start_iteration` names.
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
        """Check and keep the options.

        Args:
            num_images: of the data set.
            total_batch_size: images per iteration over all ranks.
            seed: of the order and of all samples, at least 0.
            groups: (num_images,) int group of every image, None for one group of all.
            rank, world_size: None asks the process group that is running.

        Raises:
            ValueError: no images, a total batch that the ranks cannot share equally, or a number
                of groups that is not ``num_images``.
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
        self._start = 0

    @property
    def iterations_per_epoch(self) -> float:
        """Images over images per batch: epochs have one batch more or less than each other."""
        return self.num_images / self.total_batch_size

    def set_start_iteration(self, iteration: int) -> None:
        """The next ``iter()`` begins with the batch of this iteration (0 is the first)."""
        if iteration < 0:
            raise ValueError(f"The start iteration must not be negative, got {iteration}.")
        self._start = int(iteration)

    def first_iteration(self, epoch: int) -> int:
        """The first iteration whose batch ends within this epoch, or after it."""
        return epoch * self.num_images // self.total_batch_size

    def epoch_batches(self, epoch: int) -> np.ndarray:
        """(k, total_batch_size) int64 data set indices: the batches that end within the epoch.

        k is the number of iterations up to the next epoch's first; 0 for some epochs where there
        are fewer images than a batch has.
        """
        size = self.total_batch_size
        iterations = self.first_iteration(epoch), self.first_iteration(epoch + 1)
        images = self._images(iterations[0] * size, iterations[1] * size)
        groups = self._groups[images]
        batches, left_over = [], []
        for group in np.unique(groups).tolist():
            members = images[groups == group]
            full = len(members) - len(members) % size
            batches.append(members[:full].reshape(-1, size))
            left_over.append(members[full:])
        if left_over:
            batches.append(np.concatenate(left_over).reshape(-1, size))
        rng = np.random.default_rng((self.seed, epoch, 1))
        return rng.permutation(np.concatenate(batches)) if batches else images.reshape(0, size)

    def _images(self, start: int, stop: int) -> np.ndarray:
        """Images number `start` to `stop` of the row that all epochs make."""
        first, last = start // self.num_images, -(-stop // self.num_images)
        row = [self._permutation(epoch) for epoch in range(first, last)]
        offset = first * self.num_images
        return np.concatenate([*row, np.empty(0, np.int64)])[start - offset : stop - offset]

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_images)

    def sample_seeds(self, iteration: int) -> np.ndarray:
        """(total_batch_size,) uint32: one seed per position of the total batch."""
        source = np.random.SeedSequence((self.seed, iteration))
        return source.generate_state(self.total_batch_size, np.uint32)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        iteration = self._start
        # The epoch that the image at the end of the batch belongs to.
        epoch = -(-(iteration + 1) * self.total_batch_size // self.num_images) - 1
        while True:
            offset = iteration - self.first_iteration(epoch)
            for batch in self.epoch_batches(epoch)[offset:]:
                seeds = self.sample_seeds(iteration)
                yield [
                    SampleKey(index, seed)
                    for index, seed in zip(batch[mine].tolist(), seeds[mine].tolist(), strict=True)
                ]
                iteration += 1
            epoch += 1
