"""Each command of ``vfnet-yolof``, in this process, on something small."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vfnet_yolof.cli import doctor, training
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.packaged import find_config
from vfnet_yolof.utils import images as image_files

CONFIG = "vfnet/vfnet_small_shapes.py"
TOY = str(Path(__file__).resolve().parents[1] / "engine" / "toy_config.py")
Output = pytest.CaptureFixture[str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ``train`` and ``evaluate`` hand on, which is then not run."""
    given: list[str] = []

    def record(arguments: list[str]) -> int:
        training.argument_parser().parse_intermixed_args(arguments)
        given[:] = arguments
        return 0

    monkeypatch.setattr(training, "command_line", record)
    return given


def test_train_evaluate_and_resume_a_run(tmp_path: Path, capfd: Output) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    common = ["--seed", "5", "--device", "cpu"]
    assert main(["train", TOY, "train.max_iter=2", "--output", str(run), *common]) == 0
    assert (run / "model_final.pth").is_file()
    assert main(["train", TOY, "train.max_iter=2", "--output", str(run)]) == 2
    assert "holds a run already" in capfd.readouterr().err

    run.rename(moved)  # everything is where the run is, not where its config says
    trusted = ["--allow", "engine_toy", *common]
    assert main(["train", str(moved), "--resume", "train.max_iter=4", *trusted]) == 0
    assert torch.load(moved / "model_final.pth", weights_only=False)["iteration"] == 3
    before = (moved / "metrics.json").read_text()
    assert main(["evaluate", str(moved), *trusted]) == 0
    assert (moved / "metrics.json").read_text() == before
    assert "toy/score" in (moved / "evaluation" / "001" / "metrics.json").read_text()
    assert not run.exists()


def test_training_is_told_everything(
    command: list[str], tmp_path: Path, write_split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for split in ("train", "val"):
        write_split(tmp_path / f"{split}.json", tmp_path / split)
    assert (
        main(["train", CONFIG, "--weights", "w.pth", "train.max_iter=3", "--device", "cuda:1"]) == 0
    )
    assert command[:2] == ["--config-file", find_config(CONFIG)]
    assert command[-2:] == ["train.device=cuda:1", "train.max_iter=3"]
    assert command[command.index("--init-from") + 1] == "w.pth"
    assert main(["train", CONFIG, "--data", str(tmp_path), "--small-batch", "--num-gpus", "8"]) == 0
    assert {"--data", str(tmp_path), "--small-batch", "8"} <= {*command}
    assert main(["evaluate", CONFIG, "--data", str(tmp_path / "val.json"), "--tta"]) == 0
    assert {"--eval-only", "--tta", "--data", str(tmp_path / "val.json")} <= {*command}
    with pytest.raises(SystemExit) as ended:  # MODEL comes first
        main(["train", "model.num_classes=1", CONFIG])
    assert ended.value.code == 2


@pytest.mark.parametrize("name", ["train", "evaluate"])
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps", "banana"])
def test_a_device_that_is_not_there(
    name: str, device: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """The CPU is no substitute for what was asked for; it is for a recipe's ``train.device``."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main([name, CONFIG, "--device", device]) == 2
    assert f"device {device}" in capsys.readouterr().err.replace("'", "")
    assert main([name, CONFIG, "train.device=cuda"]) == 0
    assert command[-1] == "train.device=cuda"


def test_names_that_messages_advise(command: list[str]) -> None:
    assert main(["train", CONFIG, "--init-from", "w.pth", "--output-dir", "out"]) == 0
    advised = list(command)
    assert main(["train", CONFIG, "--weights", "w.pth", "--output", "out"]) == 0
    assert command == advised


def test_train_net_takes_the_same_names() -> None:
    parsed = [
        training.argument_parser().parse_args(["--config-file", CONFIG, *names])
        for names in (
            ["--init-from", "w.pth", "--output-dir", "out"],
            ["--weights", "w.pth", "--output", "out"],
        )
    ]
    assert parsed[0] == parsed[1]


def test_weights_to_start_from_are_not_to_be_evaluated(capsys: Output) -> None:
    arguments = ["--config-file", TOY, "--eval-only", "--weights", "w.pth", "--num-gpus", "0"]
    assert training.command_line(arguments) == 2
    assert "to evaluate weights: train.init_checkpoint=w.pth" in capsys.readouterr().err


def test_evaluate_takes_the_best_of_a_run(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {}\n")
    assert main(["evaluate", str(tmp_path)]) == 2  # no checkpoint yet
    for name in ("model_best", "model_final"):
        (tmp_path / f"{name}.pth").touch()
    assert main(["evaluate", str(tmp_path)]) == 0
    assert command[-1] == f"train.init_checkpoint={tmp_path / 'model_best.pth'}"
    (tmp_path / "model_best.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert main(["evaluate", str(tmp_path)]) == 0
    assert command[-1] == f"train.init_checkpoint={tmp_path / 'model_final.pth'}"
    assert main(["evaluate", str(tmp_path), "--weights", "w.pth"]) == 0
    assert command[-1] == "train.init_checkpoint=w.pth"


def test_predict(weights: Path, picture: Path, tmp_path: Path, capsys: Output) -> None:
    results = [*("--output", str(tmp_path / "out")), *("--json", str(tmp_path / "found.json"))]
    arguments = [CONFIG, str(picture), "--weights", str(weights), "--device", "cpu", *results]
    assert main(["predict", *arguments, "--score-threshold", "0.1"]) == 0
    found = len(json.loads((tmp_path / "found.json").read_text()))
    assert f"{found} detections in 1 images" in capsys.readouterr().out
    assert (tmp_path / "out" / picture.name).is_file()
    assert main(["predict", *arguments, "model.num_classes=3"]) == 2
    assert "6 classes" in capsys.readouterr().err
    assert main(["predict", CONFIG, "--output", "out"]) == 2
    assert "Name images" in capsys.readouterr().err


def test_a_bare_checkpoint_is_answered_with_the_command(
    weights: Path, picture: Path, tmp_path: Path, capsys: Output
) -> None:
    for given in (["predict", str(weights), str(picture)], ["evaluate", str(weights)]):
        assert main([*given, "--output", str(tmp_path)]) == 2
        answer = capsys.readouterr().err
        assert "without its configuration" in answer
        assert f"vfnet-yolof COMMAND CONFIG --weights {weights}\n" in answer


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("vfnet/vfnet_smal_shapes.py", "did you mean vfnet/vfnet_small_shapes.py"),
        ("absent.pth", "no file absent.pth"),
        ("{here}", "no run's folder: it has no config.yaml"),
        ("{here}/model.onnx", "a configuration is a .py or a .yaml file, or in a checkpoint"),
        ("{here}/model.txt", "neither a config"),
    ],
)
def test_models_that_are_none(model: str, message: str, tmp_path: Path, capsys: Output) -> None:
    for name in ("model.onnx", "model.txt"):
        (tmp_path / name).touch()
    assert main(["analyze", model.format(here=tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_convert_and_average(weights: Path, tmp_path: Path, capsys: Output) -> None:
    output = tmp_path / "converted.pth"
    assert main(["convert", CONFIG, "--weights", str(weights), "--output", str(output)]) == 0
    assert f"written: {output}" in capsys.readouterr().out
    mean = tmp_path / "mean.pth"
    assert main(["average", str(output), str(weights), "--output", str(mean)]) == 0
    assert torch.load(mean, weights_only=True)["class_names"] == list("abcdef")
    assert main(["convert", CONFIG, "--output", str(output)]) == 2
    assert "--weights FILE" in capsys.readouterr().err
    assert main(["average", "absent.pth", "--output", str(mean)]) == 2


def test_analyze(capsys: Output) -> None:
    name = "gfl/gfl_small_shapes.py"
    assert main(["analyze", name, CONFIG, "model.num_classes=3", "--size", "64", "96"]) == 0
    table = capsys.readouterr().out
    assert f"| {name}" in table and f"| {CONFIG}" in table
    assert main(["analyze", name, "model.num_clases=3"]) == 2
    assert "Did you mean model.num_classes" in capsys.readouterr().err


def test_compare(tmp_path: Path, capsys: Output) -> None:
    for seed, ap in enumerate([40.0, 42.0]):
        folder = tmp_path / f"vfnet_small_seed{seed}"
        folder.mkdir()
        (folder / "finished.json").write_text(json.dumps({"bbox/AP": ap, "minutes": 2.0}))
    table = tmp_path / "table.md"
    arguments = ["vfnet/vfnet_small.py", "--seeds", "0", "1", "--output", str(tmp_path)]
    metrics = ["--metrics", "bbox/AP", "--markdown", str(table)]
    assert main(["compare", *arguments, *metrics]) == 0
    assert "41.0 ± 1.4 (40.0, 42.0)" in capsys.readouterr().out
    assert "41.0 ± 1.4" in table.read_text()
    copy = tmp_path / "vfnet_small.py"
    copy.touch()
    assert main(["compare", arguments[0], str(copy), *arguments[1:]]) == 2
    assert "would share a folder" in capsys.readouterr().err
    assert main(["compare", arguments[0], "--seeds", "0"]) == 2
    assert "--output is missing" in capsys.readouterr().err
    (tmp_path / "config.yaml").touch()
    assert main(["compare", str(tmp_path), "--average"]) == 2
    assert "model_swa.pth not found" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "--average", "train.max_iter=3"]) == 2


def test_zoo(tmp_path: Path, capsys: Output) -> None:
    assert main(["zoo"]) == 0
    assert re.search(r"vfnet/vfnet_r50_fpn_1x +41\.6 +41\.6 +vfnet_r50", capsys.readouterr().out)
    assert main(["zoo", "vfnet_r50_fpn_1x"]) == 0
    assert "SHA-256 begins with: 38db6f58" in capsys.readouterr().out
    assert main(["zoo", "vfnet_r50_fpn_9x"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["zoo", "vfnet_r50_fpn_1x", "--expected", "40"]) == 2
    assert main(["zoo", "vfnet_r50_fpn_1x", "--weights", str(tmp_path / "no.pth")]) == 2
    assert "add --output or --data" in capsys.readouterr().err
    absent = ["--weights", str(tmp_path / "no.pth"), "--output", str(tmp_path / "out.pth")]
    assert main(["zoo", "vfnet_r50_fpn_1x", *absent]) == 2
    assert "no.pth" in capsys.readouterr().err
    assert main(["zoo", "--data", "coco"]) == 2


class TestData:
    """``--data``, as ``validate-data`` takes it."""

    LAYOUTS = (
        (("train.json", "train"), ("val.json", "val")),
        (("train.json", "images"), ("val.json", "images")),
        (("train/_annotations.coco.json", "train"), ("valid/_annotations.coco.json", "valid")),
        (
            ("annotations/instances_train2017.json", "train2017"),
            ("annotations/instances_val2017.json", "val2017"),
        ),
    )

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_known_layouts(
        self,
        layout: tuple[tuple[str, str], ...],
        write_split: Callable[[Path, Path], None],
        tmp_path: Path,
        capsys: Output,
    ) -> None:
        for json_file, images in layout:
            write_split(tmp_path / json_file, tmp_path / images)
        assert main(["validate-data", "--data", str(tmp_path), "--decode"]) == 0
        folder = capsys.readouterr().out
        for json_file, _ in layout:
            assert main(["validate-data", "--data", str(tmp_path / json_file)]) == 0
            assert capsys.readouterr().out in folder

    def test_what_cannot_be_told(self, write_split, tmp_path: Path, capsys: Output) -> None:
        def refused(path: Path, message: str) -> None:
            assert main(["validate-data", "--data", str(path)]) == 2
            error = capsys.readouterr().err
            assert message in error and len(error.splitlines()) == 1

        refused(tmp_path / "absent", "no such file or folder")
        refused(tmp_path / "absent.json", "no such file or folder")
        refused(tmp_path, "none of the known layouts")
        write_split(tmp_path / "train.json", tmp_path / "elsewhere")
        refused(tmp_path, f"its images should be in {tmp_path / 'train'}, which is no folder")
        refused(tmp_path / "train.json", "its images should be in")
        write_split(tmp_path / "train" / "_annotations.coco.json", tmp_path / "train")
        refused(tmp_path, "several layouts")

    def test_the_paths_and_their_faults(self, write_split, tmp_path: Path, capsys: Output) -> None:
        file, images = tmp_path / "any.json", tmp_path / "any"
        write_split(file, images)
        paths = ["--val-json", str(file), "--val-images", str(images)]
        assert main(["validate-data", *paths]) == 0
        assert main(["validate-data", *paths, "--data", str(tmp_path)]) == 2
        assert main(["validate-data", *paths[:2]]) == 2
        assert main(["validate-data"]) == 2
        assert main(["train", CONFIG, "--data", str(images)]) == 2
        (images / "a.png").unlink()
        assert main(["validate-data", *paths]) == 1
        assert "not usable" in capsys.readouterr().out

    def test_training_needs_its_split(self, write_split, tmp_path: Path, capsys: Output) -> None:
        write_split(tmp_path / "val.json", tmp_path / "val")
        assert main(["train", CONFIG, "--data", str(tmp_path), "--device", "cpu"]) == 2
        assert f"--data {tmp_path}: has no training set" in capsys.readouterr().err


def test_doctor(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert f"torch {torch.__version__}" in report and "training can work" in report
    assert re.search(r"^ok +images: JPEG, PNG, BMP, GIF, TIFF, PNM, WebP", report, re.MULTILINE)
    monkeypatch.setattr(image_files, "_reads_heic", False)
    monkeypatch.setattr(doctor, "find_installed", lambda: None)
    monkeypatch.setattr(doctor, "OPTIONAL", [("no_such_module", "no-such", "nothing works")])
    monkeypatch.setattr(doctor, "TORCH", (99, 0))
    assert main(["doctor"]) == 1
    report = capsys.readouterr().out
    assert re.search(r"^PROBLEM +detectron2: not installed; run: vfnet-yolof", report, re.MULTILINE)
    assert re.search(r"^note +no-such: not installed. nothing works", report, re.MULTILINE)
    assert re.search(
        r"^note +images: HEIC is not read \(pip install pillow-heif\)", report, re.MULTILINE
    )
    assert re.search(r"^PROBLEM +torch .*: 99\.0 or newer is needed", report, re.MULTILINE)
    assert "2 problems: training cannot work" in report
