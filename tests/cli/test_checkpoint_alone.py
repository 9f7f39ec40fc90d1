"""A run on own data, and what can be done with one of its checkpoints and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from vfnet_yolof.checkpoint import CheckpointError, load_record
from vfnet_yolof.cli.main import main
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.inference.predictor import Predictor

CONFIG = "vfnet/vfnet_small.py"
SMALL = [
    *("model.head.num_convs=1", "--device", "cpu"),
    "dataloader.train.mapper.augmentations.0.short_edge_length=48",
    "dataloader.test.mapper.augmentations.0.short_edge_length=48",
]
Output = pytest.CaptureFixture[str]


def write_data(folder: Path, images: int = 4) -> Path:
    """train.json with train/, val.json with val/: a grey square on black in each image."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "square"}]}
        for i in range(1, images + 1):
            pixels = np.zeros((48, 48, 3), np.uint8)
            pixels[8 : 20 + i, 10:30] = 200
            Image.fromarray(pixels).save(folder / split / f"{i}.png")
            content["images"].append({"id": i, "file_name": f"{i}.png", "width": 48, "height": 48})
            box = {"id": i, "image_id": i, "category_id": 7, "bbox": [10, 8, 20, 12 + i]}
            content["annotations"].append(box)
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two iterations."""
    folder = tmp_path_factory.mktemp("runs") / "squares"
    schedule = ["train.max_iter=2", "train.eval_period=1", "--seed", "0"]
    command = ["train", CONFIG, "--data", str(data), "--output", str(folder), *SMALL, *schedule]
    assert main(command) == 0
    return folder


def test_what_a_checkpoint_says(run: Path, data: Path) -> None:
    record = load_record(run / "model_final.pth")
    assert record["class_names"] == ["square"] and record["category_ids"] == [7]
    assert any(line.startswith("torch ") for line in record["versions"])
    assert {"iteration", "bbox/AP"} <= record["metrics"].keys()
    assert record["metrics"]["iteration"] == 1
    cfg = load_config(run / "model_final.pth")
    assert cfg.train.data.path == str(data)
    assert cfg.model.num_classes == 1
    assert cfg == load_config(run / "config.yaml")


def test_it_predicts_by_itself(run: Path, data: Path, tmp_path: Path, capsys: Output) -> None:
    alone = tmp_path / "alone.pth"
    shutil.copy(run / "model_final.pth", alone)
    picture = str(data / "val" / "1.png")
    by_itself = Predictor(alone, score_thresh=0.0, device="cpu")
    with_config = Predictor(run / "config.yaml", alone, score_thresh=0.0, device="cpu")
    assert by_itself.class_names == ["square"]
    ours, theirs = by_itself(picture), with_config(picture)
    assert len(ours) > 0
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    of_run = Predictor(run, score_thresh=0.0, device="cpu")(picture)
    best = Predictor(run / "model_best.pth", score_thresh=0.0, device="cpu")(picture)
    assert torch.equal(of_run.scores, best.scores)
    output = ["--output", str(tmp_path / "drawn")]
    assert main(["predict", str(alone), picture, *output]) == 0
    assert "in 1 " in capsys.readouterr().out


def test_it_is_evaluated_by_itself(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.pth"
    shutil.copy(run / "model_final.pth", alone)
    output = tmp_path / "evaluation"
    assert main(["evaluate", str(alone), "--output", str(output), "--device", "cpu"]) == 0
    measured = json.loads((output / "metrics.json").read_text().splitlines()[-1])
    known = load_record(alone)["metrics"]
    assert measured["bbox/AP"] == known["bbox/AP"] or np.isnan(known["bbox/AP"])


def test_a_report_on_its_evaluation(run: Path, tmp_path: Path, capsys: Output) -> None:
    options = ["--output", str(tmp_path / "evaluation"), "--device", "cpu"]
    report = tmp_path / "report"
    assert main(["evaluate", str(run / "model_final.pth"), *options, "--report", str(report)]) == 0
    assert str(report / "report.html") in capsys.readouterr().out
    content = json.loads((report / "report.json").read_text())
    measured = json.loads((tmp_path / "evaluation" / "metrics.json").read_text().splitlines()[-1])
    assert content["ap"]["AP"] == pytest.approx(measured["bbox/AP"], abs=1e-9)
    assert {"weights", "results", "cost", "versions", "command"} <= content["run"].keys()
    assert content["run"]["speed"].split()[1] == "ms"
    assert content["data"]["annotations"].endswith(".json")  # their file, not a name made of it
    train = ["train", CONFIG, "--report", "x"]
    with pytest.raises(SystemExit):
        main(train)
    nowhere = ["dataloader.evaluator.output_dir=null", "--report", str(report)]
    assert main(["evaluate", str(run / "model_final.pth"), *options, *nowhere]) == 2
    assert "--report reads the detections" in capsys.readouterr().err


def test_two_of_them_are_compared(run: Path, data: Path, tmp_path: Path, capsys: Output) -> None:
    models = [str(run / "model_final.pth"), str(run)]
    options = ["--data", str(data), "--device", "cpu", "--resamples", "100"]
    assert main(["compare", *models, *options, "--output", str(tmp_path / "compared")]) == 0
    said = capsys.readouterr().out
    assert "are not told apart: 4 images are too few, at least 10 are needed" in said
    assert (tmp_path / "compared" / "comparison.html").is_file()
    assert (tmp_path / "compared" / "b" / "metrics.json").is_file()
    for wrong, message in (
        ([*models, models[0]], "3 trained models"),
        ([models[0], CONFIG], "Trained detectors are compared with each other"),
        (models, "--output is missing"),
    ):
        assert main(["compare", *wrong, *options]) == 2
        assert message in capsys.readouterr().err


def test_different_data_are_seen_before_the_evaluations(
    run: Path, data: Path, tmp_path: Path, capsys: Output
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    text = (run / "config.yaml").read_text()
    data_of_other = write_data(tmp_path / "circles", images=3)
    (other / "config.yaml").write_text(text.replace(str(data), str(data_of_other)))
    output = tmp_path / "compared"
    assert main(["compare", str(run), str(other), "--device", "cpu", "--output", str(output)]) == 2
    assert "The models are evaluated on different data, " in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("model", "name"), [("", "model_best"), ("model_final.pth", "model_final")], ids=["run", "file"]
)
def test_exported_files_are_named_after_the_weights(
    run: Path, tmp_path: Path, model: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/serving.md goes on with them."""
    pytest.importorskip("onnxscript", reason="exporting needs the extra [export]: onnxscript")
    targets = []

    def written(model: object, config: object, target: Path, *_: object, **__: object) -> list:
        targets.append(target)
        return []

    monkeypatch.setattr("vfnet_yolof.export.write.export_detector", written)
    assert main(["export", str(run / model), "--output", str(tmp_path)]) == 0
    assert targets == [tmp_path / name]


def test_a_run_resumes_by_its_folder(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(run, folder)
    resume = ["train", str(folder), "--resume", "--device", "cpu"]
    assert main([*resume, "train.max_iter=3"]) == 0
    assert load_record(folder / "model_final.pth")["iteration"] == 2


def test_data_that_are_gone_are_named(run: Path, tmp_path: Path, capsys: Output) -> None:
    config = tmp_path / "config.yaml"
    text = (run / "config.yaml").read_text()
    path = str(load_config(run / "config.yaml").train.data.path)
    config.write_text(text.replace(path, str(tmp_path / "gone")))
    output = ["--output", str(tmp_path / "out"), "--device", "cpu"]
    weights = ["--weights", str(run / "model_final.pth")]
    assert main(["evaluate", str(config), *weights, *output]) == 2
    error = capsys.readouterr().err
    assert f"--data {tmp_path / 'gone'}: there is no such" in error
    assert "name others with --data" in error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("dataloader.test.mapper.augmentations.0.short_edge_length", "size of test images"),
        ("dataloader.test.mapper.interpolation", "interpolation"),
        ("model.pixel_mean", "pixel mean"),
    ],
)
def test_a_config_that_tests_otherwise_is_refused(
    change: str, said: str, run: Path, data: Path, tmp_path: Path, capsys: Output
) -> None:
    from omegaconf import OmegaConf

    cfg = load_config(run / "config.yaml")
    value = {"size of test images": 24, "interpolation": "opencv", "pixel mean": [0.0, 0.0, 0.0]}
    OmegaConf.update(cfg, change, value[said])
    weights = run / "model_final.pth"
    with pytest.raises(ConfigError, match=f"tests otherwise than .*: {said}"):
        Predictor(cfg, weights)
    Predictor(cfg, weights, other_test_settings=True)
    Predictor(run / "config.yaml", weights, overrides=[f"{change}={value[said]}"])  # was typed
    other = tmp_path / "other.yaml"
    other.write_text(OmegaConf.to_yaml(cfg))
    command = ["evaluate", str(other), "--weights", str(weights), "--device", "cpu"]
    command += ["--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert said in capsys.readouterr().err
    assert main([*command, "--other-test-settings"]) == 0


def test_a_new_run_starts_from_a_checkpoint(run: Path, data: Path, tmp_path: Path) -> None:
    best = str(run / "model_final.pth")
    output = ["--output", str(tmp_path / "next"), "--device", "cpu", "train.max_iter=1"]
    assert main(["train", best, "--resume", *output]) == 2
    assert main(["train", best, "--data", str(data), *output]) == 0


def test_hostile_configuration(run: Path, tmp_path: Path) -> None:
    """It names only what a YAML file may name, and is as long as one."""
    content = torch.load(run / "model_final.pth", weights_only=True)
    path = tmp_path / "hostile.pth"
    text = content["config"]
    for config, message in (
        (text.replace("vfnet_yolof.modeling.meta_arch", "os"), "not among the classes"),
        ("a: !!python/object/apply:os.system [ls]", "may not name code"),
        ("x" * (11 << 20), "more than 10 MiB"),
        ("- 1", "mapping"),
        (7, "without its configuration"),
    ):
        torch.save({**content, "config": config}, path)
        with pytest.raises((ConfigError, CheckpointError), match=message):
            Predictor(path)


def test_without_validation_data_a_run_says_so_and_predicts(
    data: Path, tmp_path: Path, capsys: Output
) -> None:
    folder = tmp_path / "run"
    json_file = str(data / "train.json")
    command = ["train", CONFIG, "--data", json_file, "--output", str(folder), *SMALL]
    assert main([*command, "train.max_iter=1"]) == 0
    assert "There is no validation set, so there will be no AP" in (folder / "log.txt").read_text()
    assert Predictor(folder, device="cpu")(str(data / "val" / "1.png")) is not None
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "It was trained on as a whole." in error and "--split 0.2" not in error
    evaluated = ["--data", str(data), "--device", "cpu"]
    assert main(["evaluate", str(folder), *evaluated, "dataloader.test.num_workers=0"]) == 0
    assert main(["train", str(folder), "--resume", *evaluated, "train.max_iter=2"]) == 0
    assert (folder / "model_best.pth").is_file()


@pytest.mark.parametrize(
    ("given", "epochs", "plan"),
    [
        ([], None, "4 images, 1000 epochs of 1 iterations"),
        (["--epochs", "20"], 20, "4 images, 20 epochs of 1 iterations, evaluation every 2"),
        (["--epochs", "20", "--batch", "2"], 20, "20 epochs of 2 iterations, evaluation every 2"),
    ],
)
def test_the_schedule_follows_the_data(
    given: list[str], epochs: float | None, plan: str, prepared: Callable, data: Path
) -> None:
    cfg, changes = prepared(CONFIG, "--data", str(data), *given)
    assert any(plan in line for line in changes)
    batch = cfg.dataloader.train.total_batch_size
    assert cfg.train.max_iter == (1000 if epochs is None else epochs * 4 / batch)
    assert cfg.train.eval_period == cfg.train.checkpointer.period <= cfg.train.max_iter / 9


def test_what_is_typed_or_the_users_own_stays(
    prepared: Callable, data: Path, tmp_path: Path
) -> None:
    cfg, _ = prepared(CONFIG, "--data", str(data), "train.max_iter=7")
    assert cfg.train.max_iter == 7
    own = tmp_path / "own.yaml"
    assert prepared(CONFIG)[0].train.max_iter == 1500
    from omegaconf import OmegaConf

    content = load_config(CONFIG)
    content.train.max_iter = 33
    from vfnet_yolof.config.saved import config_text

    own.write_text(config_text(content))
    assert prepared(str(own), "--data", str(data))[0].train.max_iter == 33
    assert OmegaConf.select(content, "train.max_iter") == 33
    with pytest.raises(ConfigError, match="both say how long"):
        prepared(CONFIG, "--epochs", "3", "train.max_iter=7")
    with pytest.raises(ConfigError, match="--split parts the data that --data names"):
        prepared(CONFIG, "--split", "0.2")


@pytest.fixture
def prepared() -> Callable:
    """The configuration and the changes that a command line makes."""
    from vfnet_yolof.cli.training import argument_parser, read_arguments

    def prepare(*arguments: str):
        parser = argument_parser()
        found = read_arguments(parser.parse_intermixed_args(["--config-file", *arguments]))
        return found.cfg, found.changes

    return prepare


def test_batch_auto(prepared: Callable, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most the recipe's four; less where memory is short."""
    from vfnet_yolof.engine import batch_size

    cfg, _ = prepared(CONFIG, "--data", str(data), "train.device=cpu", SMALL[0])
    before = cfg.copy()
    assert batch_size.largest_batch(cfg) == 4
    monkeypatch.setattr(batch_size, "_free_memory", lambda: 0)
    assert batch_size.largest_batch(cfg) == 1
    assert cfg == before


def test_other_commands_take_the_data_and_the_run(
    run: Path, data: Path, tmp_path: Path, capsys: Output
) -> None:
    small = ["--size", "64", "64"]
    assert main(["analyze", "gfl/gfl_small.py", "--data", str(data), *small]) == 0
    printed = capsys.readouterr().out
    assert "at the size of the test images, 96 % of the boxes are" in printed
    output = ["--output", str(tmp_path / "drawn"), "--count", "2"]
    assert main(["show-augmentations", CONFIG, "--data", str(data), *output]) == 0
    assert main(["show-augmentations", str(run), *output]) == 0  # with the run's own data
    assert len(list((tmp_path / "drawn").iterdir())) >= 2
    assert main(["analyze", str(run / "model_final.pth"), *small]) == 0
    averaged = tmp_path / "averaged.pth"
    both = [str(run / "model_final.pth"), str(run / "model_final.pth")]
    assert main(["average", *both, "--output", str(averaged)]) == 0
    assert Predictor(averaged, device="cpu").class_names == ["square"]
