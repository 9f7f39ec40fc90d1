"""Checks of a converted detector against reference numbers, shared by all detectors' tests."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from golden_recipe import batch
from torch import Tensor, nn
from vfnet_yolof.checkpoint.convert import convert_state_dict
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.modeling.meta_arch.base import feature_sizes

CASES = ("main", "img1_empty", "all_empty", "uneven")
LEVELS = ("P3", "P4", "P5", "P6", "P7")


@dataclass(frozen=True)
class Reference:
    """The reference implementations of a detector, and what it is called here."""

    config: str
    name: str  # of the file with the keys of its parameters
    rules: str  # by which its parameters are made, of ``recipe.json``
    numbers: dict[str, str]  # {source: file}; the first file has all numbers
    losses: dict[str, str]  # {name there: name here}
    # Values of the post-processor's ``candidates`` that give the detections of these numbers.
    candidates: tuple[str, ...] = ("pair", "location")


REFERENCES = {
    "vfnet": Reference(
        config="vfnet/vfnet_r50_fpn_1x.py",
        name="vfnet_r50_fpn",
        rules="mmdet_models",
        numbers={"mmdet3": "vfnet_r50_fpn.npz", "mmdet2": "vfnet_r50_fpn_mmdet2.npz"},
        losses={"loss_cls": "loss_cls", "loss_bbox": "loss_box_init", "loss_bbox_rf": "loss_box"},
    ),
    "gfl": Reference(
        config="gfl/gfl_r50_fpn_1x.py",
        name="gfl_r50_fpn",
        rules="mmdet_models",
        numbers={"mmdet3": "gfl_r50_fpn.npz", "mmdet2": "gfl_r50_fpn_mmdet2.npz"},
        losses={"loss_cls": "loss_cls", "loss_bbox": "loss_box", "loss_dfl": "loss_dfl"},
    ),
    "yolof": Reference(
        config="yolof/yolof_r50_c5_1x.py",
        name="yolof_r50_c5",
        rules="yolof_models",
        numbers={"authors": "yolof_r50_c5.npz"},
        losses={"loss_cls": "loss_cls", "loss_box_reg": "loss_box"},
        candidates=("pair",),
    ),
}


def detectors(*names: str, **choices: str) -> pytest.MarkDecorator:
    """Run a test with the ``reference`` of each detector and count it as a golden test of that.

    Args:
        names: of detectors. choices: {argument of the test: field of :class:`Reference` whose
            values it takes in turn}.
    """
    params = [
        pytest.param(name, *chosen, marks=pytest.mark.golden(name), id="-".join((name, *chosen)))
        for name in names
        for chosen in itertools.product(*(getattr(REFERENCES[name], x) for x in choices.values()))
    ]
    return pytest.mark.parametrize(("reference", *choices), params, indirect=["reference"])


def converted_model(config_name: str, source: dict[str, Tensor]) -> nn.Module:
    """The full model of a packaged config with the reference's weights, converted."""
    model = instantiate(load_config(config_name).model)
    converted, report = convert_state_dict(source, model)
    missing, unexpected = model.load_state_dict(converted, strict=False)
    assert not missing and not unexpected, (missing, unexpected, report)
    return model


def check_checkpointer(
    model: nn.Module, config_name: str, source: dict[str, Tensor], folder: Path
) -> None:
    """Detectron2's checkpointer reads what was converted, and nothing is left over."""
    converted, _ = convert_state_dict(source, model)
    path = str(folder / "converted.pth")
    torch.save({"model": converted}, path)
    fresh = instantiate(load_config(config_name).model)
    DetectionCheckpointer(fresh).load(path)
    loaded = fresh.state_dict()
    assert loaded.keys() == converted.keys()
    assert [name for name, x in loaded.items() if not torch.equal(x, converted[name])] == []


def inputs(model: nn.Module, golden: Path, case: str) -> list[dict]:
    """The images and boxes of a case, in the model's order of channels."""
    return batch(golden, case, rgb=model.input_format == "RGB")


def train_with_running_statistics(model: nn.Module) -> None:
    """Training mode, but for the batch norms: how most of the reference numbers were made."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def check_input(model: nn.Module, golden: Path, numbers: dict[str, np.ndarray]) -> None:
    images = model.preprocess_image(inputs(model, golden, "main"))
    want = numbers["input_normalised/img0_row0_first16_per_channel"]
    np.testing.assert_allclose(images.tensor[0, :, 0, :16].numpy(), want, rtol=1e-5, atol=1e-6)


def check_features(model: nn.Module, golden: Path, numbers: dict[str, np.ndarray]) -> None:
    features = pyramid(model, golden)
    full = 0
    for level in LEVELS:
        got = features[level.lower()].double()
        want = numbers[f"neck/{level}/mean_absmean_sum_abssum"]
        np.testing.assert_allclose(got.abs().mean().item(), want[1], rtol=1e-4)
        if f"neck/{level}" in numbers:
            assert_close(got.numpy(), numbers[f"neck/{level}"])
            full += 1
    assert full >= 3


@torch.no_grad()
def pyramid(model: nn.Module, golden: Path) -> dict[str, Tensor]:
    train_with_running_statistics(model)
    return model.backbone(model.preprocess_image(inputs(model, golden, "main")).tensor)


@torch.no_grad()
def predictions(model: nn.Module, golden: Path) -> Any:
    """What the head gives for case ``main`` in training mode."""
    features = pyramid(model, golden)
    return model.head([features[name] for name in model.head_in_features])


def check_assignment(
    model: nn.Module, golden: Path, numbers: dict[str, np.ndarray], case: str
) -> None:
    items = inputs(model, golden, case)
    images = model.preprocess_image(items)
    maps = [torch.empty(1, 1, -(-256 // s), -(-320 // s)) for s in model.points.strides]
    sizes = feature_sizes(maps)
    grid = model.points.grid(sizes, torch.device("cpu"))
    valid = model.valid_locations(images, sizes)
    matches = model.match(grid, [x["instances"] for x in items], valid)
    got = torch.stack([match.box_of_each() for match in matches])
    want = numbers[f"{case}/assigned_gt"]
    np.testing.assert_array_equal(got.numpy(), np.where(want == -2, -1, want))
    assert (want >= 0).any() == (case != "all_empty")
    assert (valid is None) == (case != "uneven")
    if valid is not None:
        np.testing.assert_array_equal(valid.numpy(), want != -2)


@torch.no_grad()
def training_losses(model: nn.Module, golden: Path, case: str) -> dict[str, float]:
    train_with_running_statistics(model)
    return {k: v.item() for k, v in model(inputs(model, golden, case)).items()}


def check_losses(
    losses: dict[str, float], numbers: dict[str, np.ndarray], case: str, names: dict[str, str]
) -> None:
    """``names`` gives each loss of the reference the name that it has here."""
    assert set(losses) == set(names.values())
    for theirs, ours in names.items():
        want = float(numbers[f"{case}/loss/{theirs}"])
        np.testing.assert_allclose(losses[ours], want, rtol=1e-4, err_msg=ours)


def check_gradients(
    model: nn.Module, source: dict[str, Tensor], golden: Path, numbers: dict[str, np.ndarray]
) -> None:
    """Of every parameter that the reference numbers name."""
    train_with_running_statistics(model)
    by_theirs = gradients(model, source, golden)
    names = gradient_names(numbers, "grad")
    assert len(names) >= 14
    for name in names:
        grad = by_theirs[name]
        want = float(numbers[f"grad/{name}/norm"])
        np.testing.assert_allclose(grad.norm().item(), want, rtol=1e-3, err_msg=name)
        first = numbers[f"grad/{name}/first16"]
        got = grad.flatten()[: len(first)].numpy()
        np.testing.assert_allclose(got, first, atol=2e-3 * want, err_msg=name)


def gradient_names(numbers: dict[str, np.ndarray], prefix: str) -> list[str]:
    return sorted({k.split("/")[1] for k in numbers if k.startswith(f"{prefix}/")})


def gradients(model: nn.Module, source: dict[str, Tensor], golden: Path) -> dict[str, Tensor]:
    """Of the sum of the losses of case ``main``, under the reference's names."""
    model.zero_grad()
    sum(model(inputs(model, golden, "main")).values()).backward()
    by_theirs = gradients_by_reference_name(model, source)
    model.zero_grad()
    return by_theirs


def gradients_by_reference_name(model: nn.Module, source: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients under the reference's names: its tensors, numbered, go through the converter."""
    order = list(source)
    numbered = {
        k: torch.full_like(v, i, dtype=torch.float64) for i, (k, v) in enumerate(source.items())
    }
    converted, _ = convert_state_dict(numbered, model)
    reference_name = {k: order[int(v.flatten()[0])] for k, v in converted.items()}
    return {reference_name[k]: p.grad for k, p in model.named_parameters() if p.grad is not None}


@torch.no_grad()
def check_detections(
    model: nn.Module, golden: Path, numbers: dict[str, np.ndarray], case: str, candidates: str
) -> None:
    model.eval()
    model.postprocessor.candidates = candidates
    outputs = model(inputs(model, golden, case))
    model.postprocessor.candidates = "pair"
    for i, output in enumerate(outputs):
        got = output["instances"]
        scores = numbers[f"{case}/det/{i}/scores"]
        assert len(got) == len(scores) == 100
        np.testing.assert_allclose(got.scores.numpy(), scores, atol=1e-4)
        classes = numbers[f"{case}/det/{i}/labels"]
        np.testing.assert_array_equal(got.pred_classes.numpy(), classes)
        boxes = numbers[f"{case}/det/{i}/boxes"]
        np.testing.assert_allclose(got.pred_boxes.tensor.numpy(), boxes, atol=5e-3)


def check_map(got: Tensor, numbers: dict[str, np.ndarray], key: str) -> None:
    """Compare the map (N, C, H, W) with the whole reference, or with what is kept of a large one.

    Every 4th channel is kept as it is, and of all channels the mean of each location over the
    channels and of each channel over the locations. A difference in a channel that is not kept
    moves both means. They are compared more closely: the rounding of many values cancels out.
    """
    if key in numbers:
        assert_close(got.numpy(), numbers[key])
        return
    channels = numbers[f"{key}/every_4th_channel"]
    assert_close(got[:, ::4].numpy(), channels)
    atol = 2e-6 * np.abs(channels).max()
    for name, axes in (("channels", (1,)), ("locations", (2, 3))):
        want = numbers[f"{key}/mean_over_{name}"]
        mean = got.double().mean(axes).numpy()
        np.testing.assert_allclose(mean, want, rtol=0, atol=atol, err_msg=key)


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
