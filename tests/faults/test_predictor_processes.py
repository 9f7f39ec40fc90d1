"""A predictor in threads, in pickles, and in forked and spawned processes."""

from __future__ import annotations

import builtins
import copy
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig
from serving import (
    CONFIGS,
    forked,
    in_a_thread,
    numbers,
    pictures,
    save_weights,
    tiny_config,
    tiny_predictor,
)
from vfnet_yolof import Predictor
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.modeling.yacs import get_cfg_with_keys
from vfnet_yolof.optimization.inference import _BySize
from vfnet_yolof.utils.processes import require_own_threads

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_four_threads_get_what_one_gets(tmp_path, name, optimized):
    predictor = tiny_predictor(name, tmp_path, optimized=optimized)
    images = pictures()
    alone = [numbers(predictor(image)) for image in images]
    assert all(alone)
    fresh = tiny_predictor(name, tmp_path, optimized=optimized)  # no size is remembered

    def use(thread: int) -> list[tuple[int, list]]:
        order = np.random.default_rng(thread).permutation(len(images)).repeat(2).tolist()
        return [(i, numbers(fresh(images[i]))) for i in order]

    with ThreadPoolExecutor(4) as threads:
        results = [result for part in threads.map(use, range(4)) for result in part]
    assert all(found == alone[i] for i, found in results)


def test_each_thread_has_its_stream(tmp_path):
    predictor = tiny_predictor("YOLOF", tmp_path, batch_size=2)
    images = pictures()
    alone = [numbers(predictor(image)) for image in images]

    def use(thread: int) -> list:
        turned = [(i + thread) % len(images) for i in range(len(images))]
        found = predictor.stream(images[i] for i in turned)
        return [numbers(x) == alone[i] for i, x in zip(turned, found, strict=True)]

    with ThreadPoolExecutor(4) as threads:
        assert all(all(same) for same in threads.map(use, range(4)))


def test_configurations_are_read_by_one_thread_at_a_time():
    """While a file runs, LazyConfig replaces Python's import, and must put the right one back."""
    original, switching = builtins.__import__, sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(load_config, [file for file, _ in CONFIGS.values()] * 4))
    finally:
        sys.setswitchinterval(switching)
    assert builtins.__import__ is original


def same(first: Predictor, second: Predictor) -> bool:
    images = pictures()[:3]
    return [numbers(x) for x in first(images)] == [numbers(x) for x in second(images)]


@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_pickle_gives_the_same_results(tmp_path, name, optimized):
    predictor = tiny_predictor(name, tmp_path, optimized=optimized, batch_size=2)
    predictor(pictures()[0])  # what it remembers of a size does not matter
    predictor.model.postprocessor.max_detections = 15  # nor whether it was changed afterwards
    (tmp_path / f"{name}.pth").unlink()
    again = pickle.loads(pickle.dumps(predictor))
    assert same(predictor, again)
    assert same(predictor, copy.deepcopy(predictor))
    for attribute in ("device", "score_thresh", "batch_size", "class_names", "category_ids"):
        assert getattr(again, attribute) == getattr(predictor, attribute)
    assert again.metadata.thing_classes == ["ant", "bee", "cat"]
    assert again.cfg.image_format == predictor.cfg.image_format
    with pytest.raises(RuntimeError, match="not what built it"):
        again.cfg.build_model()


def test_pickles_of_each_kind_of_configuration(tmp_path):
    config = tiny_config("VFNet")
    weights = save_weights(config, tmp_path / "trained.pth")
    averaged = torch.load(save_weights(config, tmp_path / "other.pth", seed=1))["model"]
    torch.save({**torch.load(weights), "ema": averaged}, weights)
    resized = (
        "dataloader.test.mapper.augmentations=[{_target_:"
        "detectron2.data.transforms.ResizeShortestEdge,short_edge_length:64}]"
    )
    LazyConfig.save(config, str(tmp_path / "saved.yaml"))
    with_code = tmp_path / "with_code.py"  # which no other process can import
    with_code.write_text(
        "from vfnet_yolof.config.packaged import load_config\n"
        f"cfg = load_config({str(tmp_path / 'saved.yaml')!r})\n"
        "class Code: pass\n"
        "model, train, dataloader = cfg.model, dict(code=Code()), cfg.dataloader\n"
    )
    for given in (config, tmp_path / "saved.yaml", with_code):
        for use_ema in (True, False):
            options = dict(device="cpu", score_thresh=0.0, overrides=[resized], use_ema=use_ema)
            predictor = Predictor(given, weights, **options)
            assert same(predictor, pickle.loads(pickle.dumps(predictor)))


def test_pickles_of_a_yacs_configuration(tmp_path):
    cfg = get_cfg_with_keys()
    cfg.MODEL.META_ARCHITECTURE = "YOLOF"
    cfg.MODEL.BACKBONE.NAME = "build_vfnet_yolof_resnet_dilated_backbone"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.YOLOF.ENCODER.CHANNELS = cfg.MODEL.YOLOF.DECODER.CONV_CHANNELS = 32
    cfg.MODEL.YOLOF.ENCODER.MID_CHANNELS = 8
    cfg.MODEL.YOLOF.SCORE_THRESH_TEST = 0.0
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.DATASETS.TEST = ()
    from vfnet_yolof.config.inference import read_inference_config

    torch.manual_seed(0)
    torch.save({"model": read_inference_config(cfg).build_model().state_dict()}, tmp_path / "w.pth")
    predictor = Predictor(cfg, tmp_path / "w.pth", device="cpu", score_thresh=0.0)
    assert same(predictor, pickle.loads(pickle.dumps(predictor)))


def test_a_model_can_be_pickled_while_another_thread_predicts():
    """What it remembers of sizes changes meanwhile, so it is left out."""

    class Size:
        def __reduce__(self):
            remembered.known[Size()] = torch.zeros(1)  # as the other thread does
            return int, ()

    remembered = _BySize(torch.is_tensor, key=id)
    remembered.known[Size()] = torch.zeros(1)
    assert pickle.loads(pickle.dumps(remembered)).known == {}


def test_a_forked_process_is_told_what_it_lacks(monkeypatch):
    """Nothing is computed here: a forked process may not know that its threads are gone."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    answers = {}

    def use_and_fork() -> None:
        answers["fresh"] = forked(require_own_threads)
        require_own_threads()
        answers["used"] = forked(require_own_threads)
        answers["used, in a thread"] = forked(in_a_thread(require_own_threads))
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        answers["used, one thread"] = forked(require_own_threads)

    in_a_thread(use_and_fork)()  # a new thread has not computed yet
    message = answers.pop("used")
    assert message.startswith("RuntimeError: Process ")
    assert f"forked from process {os.getpid()}" in message
    for remedy in ("spawn", "torch.set_num_threads(1)", "after the fork"):
        assert remedy in message
    assert answers == dict.fromkeys(["fresh", "used, in a thread", "used, one thread"], "ok")


@pytest.mark.slow
def test_forked_and_spawned_processes(tmp_path):
    path = os.pathsep.join([str(TESTS.parent / "projects"), *sys.path])
    done = subprocess.run(
        [sys.executable, str(TESTS / "serving.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    expected = answers.pop("here")
    assert all(expected)
    assert answers.pop("pool spawn") == expected
    for refused in ("used before", "another one in the child", "pool fork"):
        assert "RuntimeError" in answers[refused], answers
        assert "spawn" in answers.pop(refused)
    assert set(answers.values()) == {"ok"}, answers
