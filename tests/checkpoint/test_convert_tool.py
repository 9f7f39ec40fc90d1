"""tools/convert_checkpoint.py: a file in, a file out, and what went wrong otherwise."""

from pathlib import Path

import convert_checkpoint
import pytest
import torch
from detectron2.config import instantiate
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.packaged import load_config

CONFIG = "vfnet/vfnet_small_shapes.py"


@pytest.fixture
def training_checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = instantiate(load_config(CONFIG).model)
    path = tmp_path / "model_0000999-00000000.pth"
    names = ["a", "b", "c", "d", "e", "f"]
    torch.save({"model": model.state_dict(), "class_names": names, "iteration": 999}, path)
    return path


def test_training_checkpoint_is_reduced_to_its_weights(training_checkpoint, tmp_path, capsys):
    output = tmp_path / "out.pth"
    code = convert_checkpoint.main(["--config-file", CONFIG, str(training_checkpoint), str(output)])
    printed = capsys.readouterr().out
    assert code == 0
    assert "VFNet R-18-FPN, 2 convolutions per tower, 6 classes" in printed
    assert "class names: a, b, c, d, e, f" in printed
    assert "its name says 00000000" in printed
    assert f"written: {output}" in printed
    content = torch.load(output, weights_only=True)
    assert content.keys() == {"model", "class_names", "config", "source"}
    assert len(read_inference_config(output).build_model().state_dict()) == len(content["model"])


def test_wrong_config(training_checkpoint, tmp_path, capsys):
    output = tmp_path / "out.pth"
    argv = ["--config-file", CONFIG, str(training_checkpoint), str(output), "model.num_classes=3"]
    assert convert_checkpoint.main(argv) == 1
    error = capsys.readouterr().err
    assert "checkpoint is VFNet R-18-FPN, 2 convolutions per tower, 6 classes" in error
    assert "builds VFNet R-18-FPN, 2 convolutions per tower, 3 classes" in error
    assert str(training_checkpoint) in error
    assert not output.exists()


@pytest.mark.parametrize(
    ("config", "source", "message"),
    [(CONFIG, "absent.pth", "absent.pth"), ("vfnet/vfnet_smal.py", "a.pth", "did you mean")],
)
def test_missing_files(config, source, message, capsys, tmp_path):
    argv = ["--config-file", config, source, str(tmp_path / "out.pth")]
    assert convert_checkpoint.main(argv) == 1
    assert message in capsys.readouterr().err
