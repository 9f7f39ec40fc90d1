"""Weights from a checkpoint that does not quite fit."""

import json

import pytest
import torch
from engine_toy import ToyDetector
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.engine.fine_tune import load_for_fine_tuning, load_initial_weights


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(1)
    model = ToyDetector(num_classes=7)
    path = str(tmp_path / "seven.pth")
    torch.save({"model": model.state_dict(), "class_names": list("abcdefg")}, path)
    return path, model.state_dict()


def test_all_but_the_class_layer_is_taken_over(checkpoint, caplog):
    path, weights = checkpoint
    model = ToyDetector(num_classes=3)
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_for_fine_tuning(model, path)
    assert report.mismatched == ["cls_score.bias", "cls_score.weight"]
    assert not report.missing
    assert not report.unexpected
    for name, value in model.state_dict().items():
        expected = fresh if name in report.mismatched else weights
        assert torch.equal(value, expected[name]), name
    assert "cls_score.weight has another shape" in caplog.text


def test_init_from_on_the_command_line(toy, checkpoint):
    path, weights = checkpoint
    assert toy.run("--init-from", path, "train.max_iter=1", "optimizer.lr=0.0") == 0
    model = toy.load()["model"]
    assert torch.equal(model["conv.weight"], weights["conv.weight"])
    assert model["cls_score.weight"].shape == (3, 4)


def test_init_checkpoint_must_fit(checkpoint):
    path, _ = checkpoint
    with pytest.raises(ConfigError, match=r"cls_score\.weight.*--weights"):
        load_initial_weights(ToyDetector(num_classes=3), path)
    assert len(load_initial_weights(ToyDetector(num_classes=7), path).loaded) == 11


def test_nothing_loaded_is_an_error(tmp_path):
    path = str(tmp_path / "other.pth")
    torch.save({"state_dict": {"bbox_head.weight": torch.zeros(1)}}, path)
    with pytest.raises(ConfigError, match=r"No tensor .* fits .* bbox_head\.weight"):
        load_for_fine_tuning(ToyDetector(), path)
    with pytest.raises(FileNotFoundError, match="absent"):
        load_for_fine_tuning(ToyDetector(), str(tmp_path / "absent.pth"))


def test_averaged_weights_and_distributed_names(tmp_path):
    model, average = ToyDetector(), ToyDetector()
    ema = {f"module.{k}": v for k, v in average.state_dict().items()}
    torch.save({"model": model.state_dict(), "ema": ema}, tmp_path / "ema.pth")
    other = ToyDetector()
    load_for_fine_tuning(other, str(tmp_path / "ema.pth"))
    assert torch.equal(other.conv.weight, average.conv.weight)


def test_eval_only(toy, capsys):
    assert toy.run("--eval-only") == 2
    assert "has no checkpoint" in capsys.readouterr().err
    assert toy.run("train.max_iter=4", "train.ema.enabled=True") == 0
    assert toy.run("--eval-only") == 0
    lines = (toy.output_dir / "metrics.json").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["iteration"] == 3
    assert set(last) == {"iteration", "evaluated", "toy/score"}
    assert last["evaluated"] == str(toy.output_dir / "model_best.pth")
    log = (toy.output_dir / "log.txt").read_text()
    assert "Evaluating the averaged weights of" in log
    assert "model_best.pth" in log


def test_eval_only_needs_all_weights(toy, checkpoint, capsys):
    path, _ = checkpoint
    assert toy.run("--eval-only", f"train.init_checkpoint={path}") == 2
    assert "not a checkpoint of this model" in capsys.readouterr().err
