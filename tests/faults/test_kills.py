"""Wherever a run is ended, and however often, it goes on to the weights of one left alone."""

import json
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

from toy_runs import Toy

ENDS = 6
RUN = (
    *("--num-gpus", "0", "train.max_iter=150", "train.checkpointer.period=1"),
    *("train.eval_period=7", "train.ema.enabled=True", "train.val_loss.enabled=True"),
)


def end_at_random_moments(toy, signum, count, generator, spread=1.0):
    """Begin or resume ``toy`` ``count`` times, and end it up to ``spread`` seconds later.

    The time begins when the folder is taken: some moments are in the building of model and data,
    most in steps, evaluations and the writing of checkpoints. Returns what was seen of each.
    """
    seen = []
    for _ in range(count):
        process = toy.begin(*RUN, "--resume")
        while not owned_by(process.pid, toy) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, spread))
        process.send_signal(signum)
        _, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors, errors
        tag = toy.output_dir / "last_checkpoint"
        at = tag.read_text() if tag.exists() else "nothing"
        halves = len(list(toy.output_dir.glob(".*.writing.*")))
        seen.append((process.returncode, at, halves))
        if process.returncode == 0:
            break
    return seen


def owned_by(pid, toy):
    """Whether the folder is this process's; one that was killed has left its name there."""
    owner = toy.output_dir / ".owner.json"
    return owner.exists() and json.loads(owner.read_text())["pid"] == pid


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_at_random_moments_it_comes_to_the_same_weights(tmp_path, signum):
    whole, ended = Toy(tmp_path / "whole"), Toy(tmp_path / "ended")
    assert whole.run(*RUN) == 0
    seen = end_at_random_moments(ended, signum, ENDS, random.Random(int(signum)))
    assert {status for status, _, _ in seen} <= {0, -signum, 128 + signum}
    assert ended.start(*RUN, "--resume").returncode == 0
    assert_equal(whole, ended)


def assert_equal(whole, ended):
    for name in ("model_final", "model_best"):
        a, b = whole.load(name), ended.load(name)
        assert a["iteration"] == b["iteration"]
        for key in ("model", "ema"):
            for entry in a.get(key, {}):
                assert torch.equal(a[key][entry], b[key][entry]), f"{name}: {entry}"
    assert sorted(p.name for p in whole.output_dir.glob("*.pth")) == sorted(
        p.name for p in ended.output_dir.glob("*.pth")
    )
    assert not list(ended.output_dir.glob(".*.writing.*"))


if __name__ == "__main__":  # python tests/faults/test_kills.py FOLDER SIGNAL COUNT SEED
    folder, number, count, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    whole, ended = Toy(folder / "whole"), Toy(folder / "ended")
    assert whole.start(*RUN).returncode == 0
    for line in end_at_random_moments(ended, number, count, random.Random(seed)):
        print(*line, flush=True)
    print("last", ended.start(*RUN, "--resume").returncode)
    assert_equal(whole, ended)
    print("equal")
