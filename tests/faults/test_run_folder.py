"""One training in a folder at a time, and never two of them mixed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vfnet_yolof.engine.options import ConfigError
from vfnet_yolof.engine.run_folder import LOCK, OWNER, RunFolder

HOLD = """
import sys, time
from vfnet_yolof.engine.run_folder import RunFolder
with RunFolder(sys.argv[1]).owned():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path, repository):
    """Another process that works in ``tmp_path / "run"``; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(repository / "projects")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_in_use_is_refused_with_its_owner(tmp_path, holder):
    before = sorted(p.name for p in (tmp_path / "run").iterdir())
    with pytest.raises(ConfigError, match=rf"in use by process {holder.pid} on .* since"):
        RunFolder(tmp_path / "run").owned().__enter__()
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before


def test_the_lock_of_a_killed_process_does_not_last(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunFolder(tmp_path / "run").owned():
        assert json.loads((tmp_path / "run" / OWNER).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run" / OWNER).exists()


def _fork_and_die(folder: str) -> None:
    with RunFolder(folder).owned():
        child = os.fork()
        if child == 0:  # as a loader's process: it has the lock's file open, too
            time.sleep(1.5)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)


def test_processes_that_a_killed_training_has_left_are_waited_for(tmp_path):
    training = multiprocessing.get_context("spawn").Process(
        target=_fork_and_die, args=(str(tmp_path),)
    )
    training.start()
    training.join(30)
    with RunFolder(tmp_path).owned():
        pass


def test_another_process_with_the_same_number_is_no_owner(tmp_path, holder, monkeypatch):
    owner = tmp_path / "run" / OWNER
    content = json.loads(owner.read_text())
    owner.write_text(json.dumps({**content, "process_started": "1"}))
    monkeypatch.setattr("vfnet_yolof.engine.run_folder._PATIENCE", 0.1)
    with pytest.raises(ConfigError, match="in use by"):  # the lock itself still decides
        RunFolder(tmp_path / "run").owned().__enter__()


def test_the_folder_is_free_again_at_the_end_also_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), RunFolder(tmp_path).owned():
        raise RuntimeError
    with RunFolder(tmp_path).owned():
        pass


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match=r"run cannot be used: File exists"):
        RunFolder(tmp_path / "run").owned().__enter__()


@pytest.mark.parametrize(
    ("name", "content", "holds"),
    [
        ("model_0000009.pth", "", True),
        ("model_best.pth", "", True),
        ("last_checkpoint", "model_final.pth", True),
        ("metrics.json", '{"iteration": 3, "total_loss": 1.0}\n', True),
        ("metrics.json", '{"iteration": 3, "bbox/AP": 1.0}\n', False),
        ("log.txt", "started", False),
        ("config.yaml", "train: {}", False),
        ("resnet50.pth", "", False),
        ("notes.txt", "mine", False),
    ],
)
def test_what_counts_as_a_run(tmp_path, name, content, holds):
    (tmp_path / name).write_text(content)
    folder = RunFolder(tmp_path)
    assert folder.holds_a_run() == holds
    if holds:
        with pytest.raises(ConfigError, match="--resume to continue it, --overwrite"):
            folder.require_free()
    else:
        folder.require_free()
    folder.clear()
    assert not folder.holds_a_run()
    assert (tmp_path / name).exists() == (name in ("log.txt", "resnet50.pth", "notes.txt"))


def test_figures_of_iterations_that_are_done_again_are_taken_out(tmp_path):
    line = '{{"iteration": {}, "total_loss": 1.0}}\n'
    evaluation = '{"iteration": 19, "bbox/AP": 3.0}\n'
    metrics = tmp_path / "metrics.json"
    metrics.write_text(line.format(9) + evaluation + line.format(19) + line.format(29) + '{"iter')
    RunFolder(tmp_path).repair_metrics(20)
    assert metrics.read_text() == line.format(9) + evaluation + line.format(19)
    RunFolder(tmp_path / "none").repair_metrics(20)


def test_unfinished_files_are_removed_and_others_are_not(tmp_path):
    names = ["model_final.pth.1a2b3c4d.tmp", ".config.12.yaml", "config.yaml", LOCK, "mine.txt"]
    for name in names:
        Path(tmp_path / name).write_text("")
    RunFolder(tmp_path).remove_scratch()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[2:])
