from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import vfnet_yolof
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import transforms as T
from detectron2.engine import SimpleTrainer
from omegaconf import OmegaConf
from vfnet_yolof.data import (
    DetectionMapper,
    build_test_loader,
    build_train_loader,
    get_dataset_dicts,
    register_user_datasets,
)
from vfnet_yolof.data.loader import DataLoadingError, check_pictures


class Jitter(T.Augmentation):
    """Draws from all three generators, as third-party augmentations do."""

    def get_transform(self, image):
        shift = int(torch.randint(4, ())) + random.randrange(4) + np.random.randint(4)
        return T.ColorTransform(lambda pixels: pixels + np.uint8(shift))


def loader(records, *, num_workers=0, start=0, seed=1, **kwargs):
    mapper = DetectionMapper(
        is_train=True, augmentations=[T.ResizeShortestEdge((24, 40), 64), Jitter(), T.RandomFlip()]
    )
    made = build_train_loader(records, mapper, 4, num_workers=num_workers, seed=seed, **kwargs)
    made.set_start_iteration(start)
    return made


def batches(source, count):
    """Everything that reaches the model, comparable with ==."""
    return [
        [
            (s["image_id"], s["image"].tolist(), s["instances"].gt_boxes.tensor.tolist())
            for s in batch
        ]
        for batch in islice(source, count)
    ]


def test_a_worker_computes_with_one_thread():
    """Whatever the main process has: all of them share the cores."""

    def mapper(record):
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = build_test_loader([{"file_name": "a"}], mapper, num_workers=1)
        assert list(made) == [[1]]
    finally:
        torch.set_num_threads(before)


def test_workers_and_restarts_do_not_change_the_batches(records):
    whole = batches(loader(records), 9)
    assert whole == batches(loader(records), 9)
    assert whole == batches(loader(records, num_workers=2), 9)
    assert whole[5:] == batches(loader(records, start=5), 4)
    assert whole[5:] == batches(loader(records, start=5, num_workers=2), 4)
    assert whole != batches(loader(records, seed=2), 9)


def test_an_image_is_augmented_differently_each_time(records):
    seen = [s[1:] for batch in batches(loader(records[:1]), 5) for s in batch]
    assert len({str(s) for s in seen}) > 10


def test_persistent_workers_follow_a_new_start(records):
    made = loader(records, num_workers=1)
    first = batches(made, 4)
    made.set_start_iteration(2)
    assert batches(made, 2) == first[2:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_generators_of_the_model_are_not_moved(records, num_workers):
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    mapper = DetectionMapper(is_train=False, augmentations=[])
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    batches(loader(records, num_workers=num_workers), 3)
    list(build_test_loader(records, mapper, num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_batches_are_grouped_by_aspect_ratio(records):
    def of_both_kinds(source):
        return sum(len({s["width"] > s["height"] for s in b}) == 2 for b in islice(source, 10))

    mixed = loader(records, aspect_ratio_grouping=False)
    assert of_both_kinds(loader(records)) <= 4  # of 2 or 3 in an epoch one
    assert of_both_kinds(mixed) > 4
    assert loader(records).iterations_per_epoch == mixed.iterations_per_epoch == 10 / 4
    assert mixed.total_batch_size == 4
    del records[2]["width"]
    with pytest.raises(ValueError, match=r"'width'.*aspect_ratio_grouping"):
        loader(records)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_names_its_file(records, num_workers, tmp_path):
    others = set(multiprocessing.active_children())
    (tmp_path / "4.png").write_bytes(b"broken")
    train = loader(records, num_workers=num_workers)
    with pytest.raises(RuntimeError, match=r"4\.png"):
        batches(train, 3)
    train.close()
    test = build_test_loader(
        records, DetectionMapper(is_train=False, augmentations=[]), num_workers=num_workers
    )
    with pytest.raises(RuntimeError, match=r"4\.png"):
        list(test)
    assert set(multiprocessing.active_children()) <= others


def test_bad_arguments(records):
    with pytest.raises(ValueError, match="filter_empty=False"):
        loader([])
    with pytest.raises(ValueError, match="test set is empty"):
        build_test_loader([], DetectionMapper(is_train=False, augmentations=[]))
    with pytest.raises(ValueError, match="total_batch_size=0"):
        build_train_loader(records, lambda record: record, 0)


def test_a_seed_is_drawn_where_none_is_given(records):
    first, second = loader(records, seed=None), loader(records, seed=-1)
    assert first.seed != second.seed
    assert batches(first, 2) == batches(loader(records, seed=first.seed), 2)


class TestCheckOfPictures:
    """Every header, and every second picture wholly."""

    def check(self, records):
        made = build_test_loader(records, DetectionMapper(is_train=False, augmentations=[]))
        check_pictures(made, decoded=5)

    def test_sound_ones_pass_and_the_generators_are_not_moved(self, records):
        before = np.random.get_state()[1].tolist()
        self.check(records)
        assert np.random.get_state()[1].tolist() == before

    def test_headers(self, records, tmp_path):
        (tmp_path / "3.png").write_bytes(b"broken")
        (tmp_path / "5.png").unlink()
        records[7]["width"] = 31
        with pytest.raises(DataLoadingError, match=r"^3 of 10 images cannot be") as error:
            self.check(records)
        text = str(error.value)
        assert f"{tmp_path / '3.png'} (record 3)" in text
        assert "5.png (record 5): FileNotFoundError" in text
        assert "7.png (record 7): ValueError: is 32x48, not 31x48" in text

    def test_a_picture_cut_short_shows_when_it_is_decoded(self, records, tmp_path):
        for number in (4, 5):
            whole = (tmp_path / f"{number}.png").read_bytes()
            (tmp_path / f"{number}.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataLoadingError, match=r"^1 of 10 .*4\.png \(record 4\)"):
            self.check(records)

    def test_loaders_of_others_are_left_alone(self):
        check_pictures([["a batch"]])


@pytest.mark.parametrize("batch_size", [1, 4])
def test_test_loader_passes_once_in_order(records, batch_size):
    mapper = DetectionMapper(is_train=False, augmentations=[])
    made = build_test_loader(records, mapper, batch_size=batch_size)
    seen = [[s["image_id"] for s in batch] for batch in made]
    assert sum(seen, []) == list(range(100, 110))
    assert len(made) == len(seen) == -(-10 // batch_size)


class CountPixels(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[int] = []

    def forward(self, batch):
        self.seen += [s["image_id"] for s in batch]
        return {"loss": self.weight * sum(s["image"].float().mean() for s in batch)}


def test_works_from_a_lazy_config_with_detectron2s_trainer(write_coco):
    json_file, images = write_coco()
    name = register_user_datasets(json_file, images, None, None).train_name
    config = OmegaConf.create({"seed": 4})
    config.train = L(build_train_loader)(
        dataset=L(get_dataset_dicts)(names=name, filter_empty=False),
        mapper=L(DetectionMapper)(
            is_train=True,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=[20, 30], max_size=50)],
            image_format="BGR",
        ),
        total_batch_size=2,
        num_workers=0,
        seed="${seed}",
    )
    model = CountPixels()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    SimpleTrainer(model, instantiate(config.train), optimizer).train(0, 3)
    assert sorted(model.seen) == [1, 1, 1, 2, 2, 2]


@pytest.mark.timeout(60)
def test_workers_start_where_opencv_has_threads(records):
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (3000, 3000))  # starts them
        mapper = DetectionMapper(is_train=True, augmentations=[])
        loader = build_train_loader(records, mapper, 2, num_workers=2, seed=0)
        assert len(next(iter(loader))) == 2
    finally:
        cv2.setNumThreads(threads)


def test_a_scheduler_does_not_end_workers_that_have_work(records):
    made = loader(records, num_workers=2)
    endless = iter(made)
    batches(endless, 2)  # the second is the second worker's: both are at work
    workers = made._loader._iterator._workers
    subprocess.run(["kill", "-TERM", *(str(worker.pid) for worker in workers)], check=True)
    assert len(batches(endless, 6)) == 6
    made.close()
    assert [worker.exitcode for worker in workers] == [0, 0]


def started(program, records, **options):
    """A Python program of the loader's, given the file of an image."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, records[0]["file_name"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(vfnet_yolof.__file__).parents[1])},
        **options,
    )


def test_a_program_that_leaves_its_loader_open_ends_at_once(records):
    """PyTorch ends such workers by SIGTERM, when the program is done."""
    program = ENDLESS.replace("        time.sleep(5)", "        break")
    process = started(program, records)
    assert process.communicate(timeout=45) == ("ready\n", "")
    assert process.returncode == 0


LEFT_OPEN = """
import multiprocessing, sys, time
from vfnet_yolof.data import DetectionMapper, build_train_loader
record = {"file_name": sys.argv[1], "image_id": 1, "width": 48, "height": 32}
mapper = DetectionMapper(is_train=True, augmentations=[])
loader = build_train_loader([record], mapper, 2, num_workers=2, seed=0)

def iterate():
    batches = iter(loader)
    for _ in range(2):
        next(batches)

process = multiprocessing.get_context("fork").Process(target=iterate)
process.start()
process.join()
print(process.exitcode)
"""


def test_so_does_a_process_that_iterates_the_loader_of_another(records):
    assert started(LEFT_OPEN, records).communicate(timeout=45) == ("0\n", "")


def test_loaders_are_copied_and_pickled(records):
    mapper = DetectionMapper(is_train=False, augmentations=[])
    test = build_test_loader(records, mapper, num_workers=2)
    next(iter(test))
    for made in (loader(records, num_workers=2), test):
        for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert len(next(iter(again))) > 0


ENDLESS = """
import signal, sys, time
from vfnet_yolof.data import DetectionMapper, build_train_loader
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
record = {"file_name": sys.argv[1], "image_id": 1, "width": 48, "height": 32}
mapper = DetectionMapper(is_train=True, augmentations=[])
loader = build_train_loader([record], mapper, 2, num_workers=2, seed=0)
for number, batch in enumerate(loader):
    if number:  # the second batch is the second worker's: both are at work
        print("ready", flush=True)
        time.sleep(5)  # the step, in which the interruption comes
"""


def test_ctrl_c_ends_the_workers_quietly(records):
    process = started(ENDLESS, records, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a worker outlived its main process")
