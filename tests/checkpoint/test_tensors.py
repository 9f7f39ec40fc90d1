"""One file gives the same tensors at every way in, whatever is wrapped around them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from hostile_weights import sound_state
from omegaconf import OmegaConf
from tiny import shrink_yolof, tiny_yolof
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from vfnet_yolof.checkpoint import CheckpointError, find_weights, load_into
from vfnet_yolof.checkpoint.average import average_checkpoints
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.engine.fine_tune import (
    load_checkpoint_for_evaluation,
    load_for_fine_tuning,
    load_initial_weights,
)
from vfnet_yolof.inference.predictor import Predictor
from ways_in import Ways, tiny_config

State = dict[str, Tensor]


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def averaged(state: State) -> State:
    model = instantiate(tiny_config().model)
    model.load_state_dict(state)
    return AveragedModel(model).state_dict()


WRAPPED: dict[str, Callable[[State], dict[str, Any]]] = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "DistributedDataParallel": lambda state: {"model": prefixed(state, "module.")},
    "torch.compile": lambda state: {"model": prefixed(state, "_orig_mod.")},
    "compiled inside": lambda state: {"model": prefixed(state, "module._orig_mod.")},
    "compiled outside": lambda state: {"model": prefixed(state, "_orig_mod.module.")},
    "AveragedModel": lambda state: {"model": averaged(state)},
    "Lightning": lambda state: {"state_dict": prefixed(state, "model.")},
    "Lightning, compiled": lambda state: {"state_dict": prefixed(state, "model._orig_mod.")},
}


def predict(model: nn.Module, path: Path) -> State:
    return Predictor(tiny_config(), path, device="cpu", optimized=False).model.state_dict()


def evaluate(model: nn.Module, path: Path) -> State:
    train = OmegaConf.create({"init_checkpoint": str(path), "output_dir": ""})
    load_checkpoint_for_evaluation(model, train)
    return model.state_dict()


def init_checkpoint(model: nn.Module, path: Path) -> State:
    load_initial_weights(model, str(path))
    return model.state_dict()


def init_from(model: nn.Module, path: Path) -> State:
    report = load_for_fine_tuning(model, str(path))
    assert not report.mismatched
    assert not report.missing
    return model.state_dict()


def average(model: nn.Module, path: Path) -> State:
    return find_weights(average_checkpoints([path])).tensors


def zoo(model: nn.Module, path: Path) -> State:
    return Ways(model, path.parent).zoo(path).state_dict()


READERS = (predict, evaluate, init_checkpoint, init_from, average, zoo)


@pytest.fixture(scope="module")
def state() -> State:
    return sound_state()


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_every_way_in_reads_the_same(wrapped: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(WRAPPED[wrapped](state), path)
    for read in READERS:
        torch.manual_seed(1)
        got = read(instantiate(tiny_config().model), path)
        different = [k for k, v in state.items() if k not in got or not torch.equal(got[k], v)]
        assert not different, (read.__name__, different[:3])


# This project's names of YOLOF and what its authors call them.
AUTHORS = (
    (r"backbone\.bottom_up\.(.*)", r"backbone.\1"),
    (r"backbone\.lateral\.norm\.(.*)", r"encoder.lateral_norm.\1"),
    (r"backbone\.lateral\.(.*)", r"encoder.lateral_conv.\1"),
    (r"backbone\.output\.norm\.(.*)", r"encoder.fpn_norm.\1"),
    (r"backbone\.output\.(.*)", r"encoder.fpn_conv.\1"),
    (r"backbone\.blocks\.(\d)\.(conv\d)\.norm\.(.*)", r"encoder.dilated_encoder_blocks.\1.\2.1.\3"),
    (r"backbone\.blocks\.(\d)\.(conv\d)\.(.*)", r"encoder.dilated_encoder_blocks.\1.\2.0.\3"),
    (r"head\.cls_tower\.(\d)\.(conv|norm)\.(.*)", r"decoder.cls_subnet.\1\2.\3"),
    (r"head\.reg_tower\.(\d)\.(conv|norm)\.(.*)", r"decoder.bbox_subnet.\1\2.\3"),
    (r"head\.cls_logits\.(.*)", r"decoder.cls_score.\1"),
    (r"head\.deltas\.(.*)", r"decoder.bbox_pred.\1"),
    (r"head\.objectness\.(.*)", r"decoder.object_pred.\1"),
)


def authors_name(name: str) -> str:
    pattern, theirs = next(pair for pair in AUTHORS if re.fullmatch(pair[0], name))
    name = re.sub(pattern, theirs, name)
    # Towers are numbered layer by layer: convolution, norm, activation.
    return re.sub(
        r"subnet\.(\d)(conv|norm)", lambda m: f"subnet.{3 * int(m[1]) + (m[2] == 'norm')}", name
    )


@pytest.mark.parametrize("read", [evaluate, init_checkpoint, init_from])
def test_official_files_are_converted_on_the_way(read, tmp_path: Path, caplog) -> None:
    """As the predictor has always done."""
    model, path = tiny_yolof(seed=2), tmp_path / "official.pth"
    theirs = {authors_name(name): tensor for name, tensor in model.state_dict().items()}
    theirs["pixel_mean"] = torch.zeros(3, 1, 1)
    torch.save({"model": theirs}, path)
    want = instantiate(shrink_yolof(load_config("yolof/yolof_small_shapes.py")).model)
    load_into(want, path)
    with caplog.at_level("INFO"):
        got = read(tiny_yolof(seed=3), path)
    assert all(torch.equal(got[k], v) for k, v in want.state_dict().items())
    assert all(torch.equal(got[k], v) for k, v in model.state_dict().items())
    assert "layout: Detectron2 or cvpods YOLOF" in caplog.text
    assert "pixel mean and std, set by the configuration" in caplog.text


def test_types_are_cast_as_the_model_has_them(state: State, tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        torch.save({"model": cast}, tmp_path / "model.pth")
        for read in (predict, evaluate, init_from):
            got = read(instantiate(tiny_config().model), tmp_path / "model.pth")
            assert all(torch.equal(got[k], cast[k].to(v.dtype)) for k, v in state.items())


def test_integers_under_an_own_name_are_refused(state: State, tmp_path: Path) -> None:
    """Names do not tell that a scale is a weight; the model does."""
    name = next(k for k in state if k.endswith(".scale"))
    torch.save({"model": {**state, name: torch.tensor(1)}}, tmp_path / "model.pth")
    for read in (predict, evaluate, init_checkpoint, init_from):
        with pytest.raises(CheckpointError, match=rf"model\.pth: .*{name} \(int64, the model has"):
            read(instantiate(tiny_config().model), tmp_path / "model.pth")


def test_names_with_and_without_a_prefix_are_not_mixed() -> None:
    tensors = {"module.a": torch.zeros(1), "module.b": torch.zeros(1), "a": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"twice, with and without 'module\.': module\.a"):
        find_weights(tensors)


def test_counters_beside_one_tensor_do_not_hide_its_prefix() -> None:
    assert find_weights(
        {"module.a": torch.ones(1), "n_averaged": torch.tensor(3)}
    ).tensors.keys() == {
        "a",
        "n_averaged",
    }


def test_control_characters_of_names_do_not_reach_the_terminal() -> None:
    with pytest.raises(CheckpointError) as caught:
        find_weights({"\x1b[2Ja\n.weight": torch.tensor(float("nan"))})
    assert str(caught.value).isprintable()
