"""Several runs, one table; what is done is not done again."""

import json

import pytest
from vfnet_yolof.analysis import compare
from vfnet_yolof.cli.compare import compare_tool


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Trainings that only note what they were asked for and log an evaluation."""
    calls = []

    class Finished:
        returncode = 0

    def train(command, stdout, stderr):
        folder, seed = (command[command.index(x) + 1] for x in ("--output-dir", "--seed"))
        seed = int(seed)
        calls.append((command[command.index("--config-file") + 1], seed))
        lines = [{"iteration": 1, "total_loss": 2.0}, {"bbox/AP": 40.0 + seed, "lr": 0.1}]
        with open(f"{folder}/metrics.json", "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        return Finished()

    monkeypatch.setattr(compare.subprocess, "run", train)
    return calls


def test_every_config_and_seed_is_run_once(runs, tmp_path, capsys):
    arguments = ["--configs", "a.py", "b/c.py", "--seeds", "1", "3", "--metrics", "bbox/AP"]
    arguments += ["--output", str(tmp_path / "out"), "--markdown", str(tmp_path / "docs/t.md")]
    arguments += ["--", "train.max_iter=5"]
    assert compare_tool("", arguments) == 0
    assert runs == [("a.py", 1), ("b/c.py", 1), ("a.py", 3), ("b/c.py", 3)]
    table = (tmp_path / "docs/t.md").read_text()
    assert "| a.py | 42.0 ± 1.4 (41.0, 43.0) | 0.0 |" in table
    assert "train.max_iter=5" in table
    assert "| b/c.py | 42.0 ± 1.4 (41.0, 43.0) | 0.0 |" in capsys.readouterr().out

    assert compare_tool("", arguments) == 0
    assert len(runs) == 4  # nothing was repeated


def test_a_failing_run_stops_and_is_tried_again(runs, tmp_path, monkeypatch, capsys):
    arguments = ["--configs", "a.py", "--seeds", "0", "--output", str(tmp_path)]
    arguments += ["--metrics", "bbox/AP"]
    working = compare.subprocess.run

    def fail(command, stdout, stderr):
        return type("Failed", (), {"returncode": 3})

    monkeypatch.setattr(compare.subprocess, "run", fail)
    assert compare_tool("", arguments) == 3
    assert "output.txt" in capsys.readouterr().err
    monkeypatch.setattr(compare.subprocess, "run", working)
    assert compare_tool("", arguments) == 0


def test_a_run_without_an_evaluation_is_an_error(tmp_path):
    (tmp_path / "metrics.json").write_text('{"total_loss": 1.0}\n')
    with pytest.raises(ValueError, match="holds no evaluation"):
        compare.last_metrics(tmp_path)
