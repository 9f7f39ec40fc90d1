"""One training in a folder at a time, and never two of them mixed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.engine.ending import OutputError
from vfnet_yolof.engine.run_folder import OWNER, RunFolder

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
    with pytest.raises(OutputError, match=r"Cannot write .*run: File exists"):
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
    with folder.owned():
        (tmp_path / "events.out.tfevents.new").write_text("of the run that begins")
        folder.clear()
        assert (tmp_path / "events.out.tfevents.new").exists()
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


def test_a_run_is_not_mixed_with_another(toy, capsys):
    assert toy.run("train.max_iter=4") == 0
    before = (toy.output_dir / "model_final.pth").read_bytes()
    assert toy.run("train.max_iter=4") == 2
    assert "holds a run already. Add --resume to continue it, --over" in capsys.readouterr().err
    assert (toy.output_dir / "model_final.pth").read_bytes() == before
    assert toy.run("--overwrite", "train.max_iter=2") == 0
    lines = (toy.output_dir / "metrics.json").read_text().splitlines()
    assert max(json.loads(line)["iteration"] for line in lines) <= 2
    assert not (toy.output_dir / "model_0000003.pth").exists()
    assert toy.run("--overwrite", "--resume") == 2


def test_a_run_that_cannot_start_overwrites_nothing(toy):
    assert toy.run("train.max_iter=4") == 0
    assert toy.run("--overwrite", "dataloader.train.total_batch_size=-4") == 2
    assert toy.load()["iteration"] == 3


def test_a_second_training_in_the_folder_is_refused(toy, holder, tmp_path, capsys):
    assert toy.run() == 2
    assert f"in use by process {holder.pid}" in capsys.readouterr().err
    assert not (tmp_path / "run" / "log.txt").exists()


def test_what_a_killed_run_has_left_is_put_right_at_resume(toy):
    assert toy.run("train.max_iter=8", "train.eval_period=0") == 0
    scratch = toy.output_dir / ".0123abcd.writing.model_final.pth"
    orphan = toy.output_dir / "model_0000001.pth"
    scratch.write_text("half")
    orphan.write_bytes((toy.output_dir / "model_0000003.pth").read_bytes())
    (toy.output_dir / "last_checkpoint").write_text("model_0000003.pth")
    with open(toy.output_dir / "metrics.json", "a") as file:
        file.write('{"iteration": 7, "tot')
    assert toy.run("--resume", "train.max_iter=8", "train.eval_period=0") == 0
    assert not scratch.exists()
    assert not orphan.exists()
    iterations = [
        json.loads(line)["iteration"]
        for line in (toy.output_dir / "metrics.json").read_text().splitlines()
        if "total_loss" in line
    ]
    assert iterations == sorted(set(iterations))
    for said in ("unfinished files", "model_0000001.pth, which", "and 1 damaged"):
        assert said in toy.log()


def test_a_folder_that_is_gone_at_the_end_hides_no_other_error(tmp_path):
    def lose_the_folder_and_fail():
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        (tmp_path / "run").write_text("in its place")
        raise RuntimeError("the first")

    with pytest.raises(RuntimeError, match="the first"), RunFolder(tmp_path / "run").owned():
        lose_the_folder_and_fail()


@pytest.mark.parametrize("tag", [b"", b"\xff\xfe\x00", b"gone.pth"])
def test_a_tag_that_names_no_checkpoint(toy, capsys, tag):
    toy.output_dir.mkdir()
    (toy.output_dir / "last_checkpoint").write_bytes(tag)
    (toy.output_dir / "model_0000003.pth").write_bytes(b"")
    assert toy.run("--resume") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "which does not exist; write the name of another checkpoint into it" in message
    assert "model_0000003.pth" in message
