"""Reference key lists in files as they are published: everything around the weights goes."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor, nn
from vfnet_yolof.checkpoint import convert_checkpoint, convert_state_dict, load_checkpoint
from vfnet_yolof.config.packaged import load_config

CONFIGS = {
    "vfnet_r50_fpn": "vfnet/vfnet_r50_fpn_1x.py",
    "gfl_r50_fpn": "gfl/gfl_r50_fpn_1x.py",
    "yolof_r50_c5": "yolof/yolof_r50_c5_1x.py",
}
# Channels of a class layer for 80 classes, and for 7.
CLASS_LAYERS = {80: 7, 400: 35}
NAMES = tuple("abcdefg")


def numbers(shapes: dict[str, list[int]], first: int = 0) -> dict[str, Tensor]:
    """A different value for each key; one number is stored, however large the tensor is."""
    return {
        key: torch.tensor(float(i)).expand(shape) if shape else torch.tensor(i)
        for i, (key, shape) in enumerate(shapes.items(), start=first)
    }


def seven_classes(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    return {
        key: [CLASS_LAYERS.get(shape[0], shape[0]), *shape[1:]]
        if "cls" in key and "convs" not in key and "subnet" not in key and "dconv" not in key
        else shape
        for key, shape in shapes.items()
    }


def message_hub() -> Any:
    """An object of a class that is known only while the file is written."""
    return type("HistoryBuffer", (), {"__module__": "mmengine.logging"})()


def wrap(kind: str, shapes: dict[str, list[int]]) -> dict[str, Any]:
    state, other = numbers(shapes), numbers(shapes, first=10_000)
    if kind == "mmdetection 2":
        ema = {"ema_" + k.replace(".", "_"): v for k, v in other.items()}
        return {"meta": {"CLASSES": NAMES, "epoch": 12}, "state_dict": state | ema, "optimizer": {}}
    if kind == "mmdetection 3":
        return {
            "meta": {"dataset_meta": {"classes": NAMES}, "cfg": "model = dict()"},
            "state_dict": state | {"data_preprocessor.mean": torch.zeros(3, 1, 1)},
            "ema_state_dict": {f"module.{k}": v for k, v in other.items()}
            | {"steps": torch.ones(1)},
            "message_hub": {"log_scalars": {"train/loss": message_hub()}},
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
        }
    if kind == "averaged":
        prefixed = {f"module.{k}": v for k, v in state.items()}
        return {"state_dict": prefixed | {"n_averaged": torch.tensor(18)}, "meta": {}}
    return {"model": {f"module.{k}": v for k, v in state.items()}, "iteration": 22499}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(content: dict[str, Any]) -> Path:
        module = types.ModuleType("mmengine.logging")
        hub = content.get("message_hub")
        if hub:
            module.HistoryBuffer = type(hub["log_scalars"]["train/loss"])
            monkeypatch.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
            monkeypatch.setitem(sys.modules, "mmengine.logging", module)
        torch.save(content, tmp_path / "published.pth")
        for name in ("mmengine.logging", "mmengine"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        return tmp_path / "published.pth"

    return write


def small_model(name: str, num_classes: int) -> nn.Module:
    config = load_config(CONFIGS[name])
    config.model.num_classes = num_classes
    with torch.device("meta"):
        return instantiate(config.model)


@pytest.mark.golden
@pytest.mark.parametrize("num_classes", [80, 7])
@pytest.mark.parametrize("kind", ["mmdetection 2", "mmdetection 3", "averaged", "distributed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_converts_completely(name, kind, num_classes, golden, written) -> None:
    shapes = json.loads((golden / f"{name}.keys.json").read_text())
    if num_classes == 7:
        shapes = seven_classes(shapes)
    checkpoint = load_checkpoint(written(wrap(kind, shapes)))
    model = small_model(name, num_classes)
    converted, report = convert_state_dict(checkpoint, model)
    expected = {k: v.shape for k, v in model.state_dict().items()}
    assert {k: v.shape for k, v in converted.items()} == expected
    assert set(report.renamed) | set(report.dropped) >= set(shapes)
    assert f"{num_classes} classes" in report.description
    values = {key: float(i) for i, key in enumerate(shapes)}
    assert all(float(converted[new].max()) == values[old] for old, new in report.renamed.items())


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["mmdetection 2", "mmdetection 3"])
def test_class_names_are_kept(kind, golden, written, tmp_path) -> None:
    shapes = json.loads((golden / "gfl_r50_fpn.keys.json").read_text())
    path = written(wrap(kind, seven_classes(shapes)))
    result, _ = convert_checkpoint(path, tmp_path / "ours.pth", small_model("gfl_r50_fpn", 7))
    assert result["class_names"] == list(NAMES)
    assert "HistoryBuffer" not in str(torch.load(tmp_path / "ours.pth", weights_only=True).keys())
