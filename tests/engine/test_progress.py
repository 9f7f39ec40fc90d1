"""A terminal has one line that moves; the log file has all reports; the two do not mix."""

import re

import pytest
from vfnet_yolof.engine import progress
from vfnet_yolof.engine.trainer import Trainer


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(progress, "on_terminal", lambda: True)


def test_a_terminal_sees_one_line_and_the_file_all_reports(toy, terminal, capfd):
    assert toy.run() == 0
    shown = capfd.readouterr()
    assert "eta: " not in shown.out
    assert toy.log().count("eta: ") == 6
    last = shown.err.strip().splitlines()[-1].split("\r")[-1]
    assert re.search(
        r"^epoch 4\.00, loss [\d.]+, toy/score -[\d.]+ \(best -[\d.]+\): 100%.* 12/12", last
    )
    # Each message has a line of its own; the progress line is not among them.
    assert "it/s" not in shown.out
    assert re.search(r"^\S*\[.*Checkpoint written: .*model_final.pth$", shown.out, re.MULTILINE)


def test_a_resumed_run_begins_where_it_was(toy, terminal, capfd):
    assert toy.run("train.max_iter=4") == 0
    capfd.readouterr()
    assert toy.run("--resume", "train.max_iter=8") == 0
    assert " 4/8 " in capfd.readouterr().err


def test_an_error_ends_the_line_and_is_told_on_the_console(toy, terminal, capfd, monkeypatch):
    def fail(self):
        raise ValueError("no such luck")

    monkeypatch.setattr(Trainer, "run_step", fail)
    with pytest.raises(ValueError, match="no such luck"):
        toy.run()
    assert "Training failed at iteration 0: no such luck" in capfd.readouterr().out
    assert toy.run("--overwrite", "--resume") == 2  # and the console is as before
    assert "error: --resume continues a run" in capfd.readouterr().err


def test_files_pipes_and_other_processes_get_plain_lines(toy, capfd):
    assert not progress.on_terminal()
    assert toy.run("train.max_iter=4") == 0
    shown = capfd.readouterr()
    assert "it/s" not in shown.err + shown.out
    assert "eta: N/A  iter: 1  epoch: 0.6667  total_loss: " in shown.out
    assert re.search(r"eta: 0:00:00  iter: 3  epoch: 1\.333  total_loss: ", shown.out)
