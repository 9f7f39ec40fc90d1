"""Hostile and damaged weight files at every way in: refused in one sentence, in bounded memory."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import hostile_weights
import pytest
import torch
import vfnet_yolof
from detectron2.config import instantiate
from hostile_weights import (
    HEAVY,
    HOSTILE,
    NO_TRAINING_STATE,
    checkpoint,
    sound_state,
)
from vfnet_yolof.checkpoint import CheckpointError, load_checkpoint
from vfnet_yolof.config.options import ConfigError
from ways_in import Ways, tiny_config

GB = 1e9


@pytest.fixture(scope="module")
def state():
    return sound_state()


@pytest.fixture
def ways(tmp_path):
    torch.manual_seed(1)
    return Ways(instantiate(tiny_config().model), tmp_path)


def assert_says(message: str, name: str, way: str, path: Path) -> None:
    """One line, with the file and what is wrong."""
    assert str(path) in message
    assert "\n" not in message
    expected = (
        f"{HOSTILE[name].says}|{NO_TRAINING_STATE}" if way == "resume" else HOSTILE[name].says
    )
    assert re.search(expected, message), (way, message)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in HEAVY])
def test_refused_at_every_way_in(name: str, state, ways: Ways, tmp_path: Path) -> None:
    """And the model is as it was."""
    path = tmp_path / f"hostile{HOSTILE[name].suffix}"
    HOSTILE[name].write(path, state)
    before = {key: value.clone() for key, value in ways.model.state_dict().items()}
    for way in Ways.names:
        with pytest.raises((CheckpointError, ConfigError)) as caught:
            ways.load(way, path)
        assert_says(str(caught.value), name, way, path)
    assert all(torch.equal(before[k], v) for k, v in ways.model.state_dict().items())
    assert not (tmp_path / "converted.pth").exists()
    assert not list(tmp_path.glob("cache/converted/*"))


@pytest.mark.parametrize("way", [way for way in Ways.names if way != "backbone"])
def test_the_sound_file_loads_everywhere(way: str, state, ways: Ways, tmp_path: Path) -> None:
    """So that the refusals above are not of the file that was damaged."""
    torch.save(checkpoint(state), tmp_path / "sound.pth")
    ways.load(way, tmp_path / "sound.pth")


def test_any_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """Torch leaves gaps in its files; a bit in a gap is nobody's."""
    rng = random.Random(0)
    content = checkpoint({f"layer{i}.weight": torch.arange(40.0) + i for i in range(5)})
    path = tmp_path / "model.pth"
    torch.save(content, path)
    sound = path.read_bytes()
    refused = 0
    for _ in range(400):
        position = rng.randrange(len(sound))
        damaged = bytearray(sound)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(path)
        except CheckpointError:
            refused += 1
            continue
        assert loaded.keys() == content.keys(), position
        assert loaded["iteration"] == 3
        assert all(torch.equal(loaded["model"][k], v) for k, v in content["model"].items()), (
            position
        )
    assert refused > 100


def run_all(*names: str) -> list[dict]:
    """Answers of a process of its own, whose memory is measured."""
    folders = Path(vfnet_yolof.__file__).parents[1], Path(hostile_weights.__file__).parent
    done = subprocess.run(
        [sys.executable, hostile_weights.__file__, *names],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_time_and_memory_of_every_refusal() -> None:
    for answer in run_all():
        says = HOSTILE[answer["file"]].says
        assert re.search(f"{says}|{NO_TRAINING_STATE}", answer["answer"]), answer
        assert answer["grown"] <= answer["bytes"] + 1 * GB, answer
        assert answer["seconds"] <= 10, answer


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_half_a_gigabyte_is_refused_in_time(tmp_path: Path, zipped: bool) -> None:
    """The fault is at the end of the file: a flipped bit, or where there is no checksum, a NaN."""
    path = tmp_path / "large.pth"
    tensors = {f"layer{i}.weight": torch.randn(1000, 1000) for i in range(125)}
    if not zipped:
        tensors["layer124.weight"][-1, -1] = float("nan")
    torch.save(checkpoint(tensors), path, _use_new_zipfile_serialization=zipped)
    if zipped:
        data = bytearray(path.read_bytes())
        data[data.index(tensors["layer124.weight"].numpy().tobytes()[:64])] ^= 1
        path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(ConfigError, match="checksum|1 of 1000000"):
        Ways(torch.nn.Identity(), tmp_path).load("resume", path)
    assert time.process_time() - start <= 10
