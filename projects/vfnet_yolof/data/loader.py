"""Loaders whose batches depend on (seed, iteration) alone, not on workers or restarts."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing.util import Finalize
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from .mosaic import Mosaic
from .sampler import GroupedBatchSampler, SampleKey

Record = dict[str, Any]
Mapper = Callable[[Record], Record]


class Records(Protocol):
    """Detectron2 data set dicts: a list, or a map-style data set with a length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


logger = logging.getLogger(f"detectron2.{__name__}")

_LAST_WORK = 60  # seconds that a worker has after a scheduler's SIGTERM


class DataLoadingError(RuntimeError):
    """A sample that could not be made; the message names its file."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed numpy, random and torch (CPU) inside the block; put their states back after it."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    torch_state = torch.random.get_rng_state()
    np.random.seed(seed)
    random.seed(seed)
    # torch.manual_seed would also reseed every CUDA device, and nobody would put that back
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.random.set_rng_state(torch_state)


class MappedDataset(Dataset[Record]):
    """Map-style data set of mapped records; accepts a plain index or a :class:`SampleKey`."""

    def __init__(self, records: Records, mapper: Mapper, mosaic: Mosaic | None = None) -> None:
        # serialised into one array, which forked workers share instead of copying
        is_list = isinstance(records, Sequence)
        self._records: Records = DatasetFromList(records, copy=False) if is_list else records
        self._mapper = mapper
        self._mosaic = mosaic

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: int | SampleKey) -> Record:
        if not isinstance(key, SampleKey):
            return self._sample(key)
        with seeded(key.seed):
            sample = self._sample(key.index)
            return sample if self._mosaic is None else self._mosaic(sample, self._any_sample)

    def record(self, index: int) -> Record:
        """As the data set has it, with its annotations and before any augmentation."""
        return self._records[index]

    def boxes_of_classes(self) -> Counter[int]:
        """Annotated boxes of each class index; crowd regions are none."""
        return Counter(
            annotation["category_id"]
            for index in range(len(self))
            for annotation in self._records[index].get("annotations", ())
            if not annotation.get("iscrowd")
        )

    def faults(self, indices: Sequence[int], decoded: Collection[int]) -> list[str]:
        """What is wrong with the images of records, as far as their headers tell.

        Args:
            indices: of the records.
            decoded: indices of those that are made into samples.
        """
        check = getattr(self._mapper, "check_header", None)
        found = []
        for index in indices:
            record = self._records[index]
            try:
                if check is not None:
                    check(record)
                if index in decoded:
                    with seeded(0):
                        self._mapper(record)
            except Exception as error:  # of a different type for every kind of damage
                found.append(_named(record, index, error))
        return found

    def _any_sample(self) -> Record:
        return self._sample(np.random.randint(len(self)))

    def _sample(self, index: int) -> Record:
        record = self._records[index]
        try:
            return self._mapper(record)
        except Exception as error:
            raise DataLoadingError(f"Could not load {_named(record, index, error)}") from error


def _named(record: Record, index: int, error: Exception) -> str:
    file = record.get("file_name", "a record without file_name")
    return f"{file} (record {index}): {type(error).__name__}: {error}"


class TrainLoader:
    """Endless batches of this rank; ``iter()`` begins at the iteration that was set."""

    def __init__(self, loader: DataLoader[Record], batch_sampler: GroupedBatchSampler) -> None:
        self._loader = loader
        self.batch_sampler = batch_sampler

    @property
    def total_batch_size(self) -> int:
        return self.batch_sampler.total_batch_size

    @property
    def iterations_per_epoch(self) -> float:
        return self.batch_sampler.iterations_per_epoch

    @property
    def seed(self) -> int:
        """The seed in use, also where it was drawn; a resumed run must be given the same."""
        return self.batch_sampler.seed

    def set_start_iteration(self, iteration: int) -> None:
        """Call before ``iter()``: the first batch will be that of this iteration."""
        self.batch_sampler.set_start_iteration(iteration)

    def __iter__(self) -> Iterator[list[Record]]:
        _leaving(os.getpid())  # which the workers inherit
        return iter(self._loader)

    def close(self) -> None:
        """End the worker processes, which else live as long as the loader."""
        iterator, self._loader._iterator = self._loader._iterator, None
        _end_workers(iterator)


class _TestLoader(DataLoader[Record]):
    """Ends its workers with each pass, also with one that an image's error ends.

    Else they wait for Python's collection of cycles, in which the error keeps the iterator.
    """

    def __iter__(self) -> Any:
        _leaving(os.getpid())  # which the workers inherit
        iterator = super().__iter__()
        try:
            yield from iterator
        finally:
            _end_workers(iterator)


def _end_workers(iterator: Any) -> None:
    if isinstance(iterator, _MultiProcessingDataLoaderIter):
        iterator._shutdown_workers()


def build_train_loader(
    dataset: Records,
    mapper: Mapper,
    total_batch_size: int,
    *,
    num_workers: int = 0,
    seed: int | None = None,
    aspect_ratio_grouping: bool = True,
    mosaic: Mosaic | None = None,
) -> TrainLoader:
    """Loader of training batches, the same for the same seed whatever `num_workers` is.

    Args:
        dataset: Detectron2 data set dicts.
        mapper: makes a sample of a dict. What it draws from numpy's, Python's and torch's global
            generators is seeded per sample.
        total_batch_size: images per iteration over all ranks.
        num_workers: processes per rank; they stay alive between iterators.
        seed: None (or negative, as Detectron2 writes it) draws one that all ranks share.
        aspect_ratio_grouping: batches of only wide (width > height) or only other images.
        mosaic: makes one sample of four; the three further ones are drawn from the whole data set,
            seeded as the sample is.

    Raises:
        ValueError: empty data set, or a total batch that the ranks cannot share equally.
    """
    if len(dataset) == 0:
        raise ValueError(
            "The training set is empty. If images without boxes were filtered out, "
            "set dataloader.train.dataset.filter_empty=False or check the annotations."
        )
    if seed is None or seed < 0:
        seed = comm.shared_random_seed()
        logger.info("No seed given for the training data; using %d", seed)
    batch_sampler = GroupedBatchSampler(
        len(dataset),
        total_batch_size,
        seed=int(seed),
        groups=_is_wide(dataset) if aspect_ratio_grouping else None,
    )
    loader = DataLoader(
        MappedDataset(dataset, mapper, mosaic),
        batch_sampler=batch_sampler,
        persistent_workers=num_workers > 0,
        **_loader_options(num_workers),
    )
    return TrainLoader(loader, batch_sampler)


def build_test_loader(
    dataset: Records,
    mapper: Mapper,
    *,
    num_workers: int = 0,
    batch_size: int = 1,
) -> DataLoader[Record]:
    """Loader that passes once over this rank's share of `dataset`, in order; it has a length.

    Raises:
        ValueError: empty data set.
    """
    if len(dataset) == 0:
        raise ValueError("The test set is empty; check the annotation file of the data set.")
    return _TestLoader(
        MappedDataset(dataset, mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)),
        drop_last=False,
        **_loader_options(num_workers),
    )


def check_pictures(loader: Any, decoded: int = 16) -> None:
    """Look at this rank's share of a test loader's images, so that no surprise comes later.

    The header of every image is read, where the mapper has a ``check_header(record)``, and a
    sample of `decoded` images is made as for an evaluation. Loaders that are not made by
    :func:`build_test_loader` are left alone.

    Raises:
        DataLoadingError: names the images that cannot be used, at most five of them.
    """
    dataset = mapped_dataset(loader)
    if dataset is None:
        return
    share = list(loader.sampler)
    step = max(1, len(share) // max(1, decoded))
    faults = dataset.faults(share, set(share[::step][:decoded]))
    if faults:
        shown = "; ".join(faults[:5]) + ("; ..." if len(faults) > 5 else "")
        raise DataLoadingError(
            f"{len(faults)} of {len(share)} images cannot be evaluated on: {shown}"
        )


def mapped_dataset(loader: Any) -> MappedDataset | None:
    """The data set of a loader that was made here; None of others."""
    inner = loader._loader if isinstance(loader, TrainLoader) else loader
    dataset = getattr(inner, "dataset", None)
    return dataset if isinstance(dataset, MappedDataset) else None


def _loader_options(num_workers: int) -> dict[str, Any]:
    if num_workers:
        # Workers share the cores, as with torch's threads. It has to be said here: a forked worker
        # that inherits OpenCV's threads waits for ever for those that did not come along.
        cv2.setNumThreads(1)
    return {
        "num_workers": num_workers,
        "collate_fn": trivial_batch_collator,
        "worker_init_fn": _InitWorker(),
        # The loader draws a base seed on every iter(): from its own generator, so that neither a
        # restart nor an evaluation moves the generator that the model uses.
        "generator": torch.Generator().manual_seed(0),
    }


@cache
def _leaving(process: int) -> Any:
    """A flag that a process shares with its workers and sets when it ends.

    PyTorch leaves workers that are still there then to ``multiprocessing``, which sends SIGTERM.
    """
    flag = multiprocessing.RawValue("b", 0)
    # Not by `atexit`: processes that multiprocessing has started end without it.
    Finalize(None, setattr, (flag, "value", 1), exitpriority=100)
    return flag


class _InitWorker:
    """``worker_init_fn`` of the loaders; a worker that is no fork is handed the flag.

    It cannot be pickled otherwise, so it is no part of the loader's state.
    """

    def __init__(self, leaving: Any = None) -> None:
        self.leaving = leaving

    def __reduce__(self) -> tuple[type[_InitWorker], tuple[Any]]:
        spawning = multiprocessing.context.get_spawning_popen() is not None
        return _InitWorker, (_leaving(os.getpid()) if spawning else None,)

    def __call__(self, worker_id: int) -> None:
        leaving = _leaving(os.getppid()) if self.leaving is None else self.leaving
        _take_signals(leaving)


def _take_signals(leaving: Any) -> None:
    # Ctrl-C, and what a scheduler sends, reach the whole process group: the main process, which
    # may have work for the workers yet, stops them in order.
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has not all of them
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def put_off(signum: int, frame: Any) -> None:
        if leaving.value:
            os._exit(0)
        signal.alarm(_LAST_WORK)

    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, put_off)


def _is_wide(dataset: Records) -> np.ndarray:
    try:
        sizes = [(dataset[i]["width"], dataset[i]["height"]) for i in range(len(dataset))]
    except KeyError as error:
        raise ValueError(
            f"A record has no {error}, which grouping by aspect ratio needs; "
            "add it or set dataloader.train.aspect_ratio_grouping=False."
        ) from error
    width, height = np.array(sizes, dtype=np.float64).T
    return (width > height).astype(np.int64)
