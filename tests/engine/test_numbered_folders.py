"""Without a folder's name, every run gets one of its own: ``output/<config>/001``, ``002``, ..."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_toy import ToyDetector
from toy_runs import FOLDER
from vfnet_yolof.cli.training import command_line
from vfnet_yolof.engine.run_folder import RunSeries

SHORT = ["--seed", "5", "train.max_iter=2", "train.eval_period=0"]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The toy config below another name, as it is without an output folder of its own."""
    monkeypatch.chdir(tmp_path)
    text = (FOLDER / "toy_config.py").read_text()
    Path("my toy.py").write_text(text.replace('output_dir="./output/toy"', 'output_dir="./output"'))
    return "my toy.py"


def train(config, *arguments):
    return command_line(["--config-file", config, *SHORT, *arguments])


def runs():
    return sorted(path.parent.as_posix() for path in Path("output").rglob("model_final.pth"))


def test_runs_are_numbered_and_the_newest_is_resumed_and_evaluated(config, capfd):
    assert train(config, "--resume") == 2
    assert train(config, "--eval-only") == 2
    message = capfd.readouterr().err
    assert "output/my_toy holds no run to resume" in message
    assert "output/my_toy holds no run to evaluate" in message
    assert not Path("output/my_toy").exists()
    assert train(config) == train(config) == 0
    assert runs() == ["output/my_toy/001", "output/my_toy/002"]
    assert "output_dir: output/my_toy/002" in Path("output/my_toy/002/config.yaml").read_text()
    Path("output/my_toy/003").mkdir()  # of a run that has not begun
    capfd.readouterr()
    assert train(config, "--resume", "train.max_iter=3") == 0
    assert "Output folder: output/my_toy/002" in capfd.readouterr().out
    lines = [Path(run, "metrics.json").read_text().count("\n") for run in runs()]
    assert train(config, "--eval-only") == 0
    assert [Path(run, "metrics.json").read_text().count("\n") for run in runs()] == [
        lines[0],
        lines[1] + 1,
    ]


def test_weights_that_are_named_are_evaluated_beside_the_runs(config):
    assert train(config) == 0
    weights = "train.init_checkpoint=output/my_toy/001/model_final.pth"
    before = {path: path.stat().st_mtime_ns for path in Path("output/my_toy/001").rglob("*")}
    assert train(config, "--eval-only", weights) == train(config, "--eval-only", weights) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for number in ("001", "002"):
        lines = Path(f"output/my_toy/evaluation/{number}/metrics.json").read_text()
        assert lines.count("toy/score") == 1
    assert train(config, "--resume", "train.max_iter=3") == 0  # evaluations are no runs
    assert runs() == ["output/my_toy/001"]


def test_a_run_that_cannot_start_leaves_no_folder(config, capfd):
    assert train(config, "dataloader.train.total_batch_size=-4") == 2
    assert list(Path("output/my_toy").iterdir()) == []
    assert train(config, "--overwrite") == 2
    assert "--overwrite deletes the run in a folder: name that" in capfd.readouterr().err


def test_a_run_that_fails_keeps_its_folder(config, monkeypatch):
    def fail(self, batch):
        raise ValueError("broken model")

    monkeypatch.setattr(ToyDetector, "forward", fail)
    assert train(config) == 1
    assert Path("output/my_toy/001/config.yaml").is_file()


@pytest.mark.parametrize(
    "named", [["--output-dir", "output/b"], ["train.output_dir=output/b"], ["--output-dir=output"]]
)
def test_a_folder_that_is_named_is_used_as_it_is(config, named):
    assert train(config, *named) == 0
    assert runs() == [named[-1].rpartition("=")[2]]
    assert train(config, *named) == 2  # which holds a run


def test_a_folder_that_the_config_names_is_used_as_it_is(config):
    text = Path(config).read_text()
    Path(config).write_text(text.replace('output_dir="./output"', 'output_dir="./output/mine"'))
    assert train(config) == 0
    assert runs() == ["output/mine"]
    assert train(config) == 2


def test_a_run_from_a_checkpoint_gets_the_next_number(config, capfd):
    """Its config names the folder of the run that it comes from."""
    from vfnet_yolof.cli.main import main

    assert train(config) == 0
    start = ["output/my_toy/001/model_final.pth", "--device", "cpu", "--trust-config"]
    assert main(["train", *start, "train.max_iter=1"]) == 0
    assert runs() == ["output/my_toy/001", "output/my_toy/002"]
    assert main(["train", *start, "--resume"]) == 2
    Path("moved").mkdir()
    Path("moved/a.pth").write_bytes(Path("output/my_toy/001/model_final.pth").read_bytes())
    before = Path("output/my_toy/001/metrics.json").read_text()
    assert main(["evaluate", "moved/a.pth", *start[1:]]) == 0
    assert Path("output/my_toy/001/metrics.json").read_text() == before
    assert Path("output/my_toy/evaluation/001/metrics.json").is_file()


def _claim(folder, count, claimed):
    claimed.put([RunSeries(folder, "x").new_run().name for _ in range(count)])


def test_processes_that_start_at_once_get_different_numbers(tmp_path):
    (tmp_path / "x" / "0007").mkdir(parents=True)
    (tmp_path / "x" / "notes").mkdir()
    context = multiprocessing.get_context("fork")
    claimed = context.Queue()
    processes = [context.Process(target=_claim, args=(tmp_path, 50, claimed)) for _ in range(4)]
    for process in processes:
        process.start()
    names = sorted(name for _ in processes for name in claimed.get(timeout=60))
    for process in processes:
        process.join()
    assert names == [f"{number:03d}" for number in range(8, 208)]


def test_all_processes_of_a_run_use_one_folder(config, repository):
    done = subprocess.run(
        [
            *(sys.executable, str(repository / "tools/train_net.py"), "--config-file", config),
            *("--num-gpus", "0", "--num-processes", "2", *SHORT),
        ],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(repository / "projects"), str(FOLDER)]),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert runs() == ["output/my_toy/001"]
    assert os.listdir("output/my_toy") == ["001"], done.stderr
    assert Path("output/my_toy/001/log.txt.rank1").is_file()
    assert "Warning" not in done.stderr  # of packages, in any of the processes
