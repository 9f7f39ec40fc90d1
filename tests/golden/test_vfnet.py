"""VFNet R-50 number for number against MMDetection 3.3 and the authors' code base."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from golden_recipe import batch, reference_state_dict
from vfnet_yolof.checkpoint.convert import convert_state_dict
from vfnet_yolof.configs import load_config
from vfnet_yolof.modeling.meta_arch.base import feature_sizes

pytestmark = pytest.mark.golden

CASES = ("main", "img1_empty", "all_empty", "uneven")
LEVELS = ("P3", "P4", "P5", "P6", "P7")
LOSSES = {"loss_cls": "loss_cls", "loss_bbox": "loss_box_init", "loss_bbox_rf": "loss_box"}
SOURCES = {"mmdet3": "vfnet_r50_fpn.npz", "mmdet2": "vfnet_r50_fpn_mmdet2.npz"}


@pytest.fixture(scope="module")
def golden(shared_dir: Path) -> Path:
    return shared_dir / "golden"


@pytest.fixture(scope="module")
def numbers(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / SOURCES["mmdet3"]))


@pytest.fixture(scope="module")
def source(golden: Path) -> dict[str, torch.Tensor]:
    return reference_state_dict(golden, "vfnet_r50_fpn", "mmdet_models")


@pytest.fixture(scope="module")
def model(source: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The full model of the packaged config with the reference's weights, converted."""
    config = load_config("vfnet/vfnet_r50_fpn_1x.py")
    model = instantiate(config.model)
    converted, report = convert_state_dict(source, model)
    missing, unexpected = model.load_state_dict(converted, strict=False)
    assert not missing and not unexpected, (missing, unexpected, report)
    return model


def training_losses(model: torch.nn.Module, items: list[dict]) -> dict[str, torch.Tensor]:
    model.train()
    return model(items)


def test_checkpointer_leaves_nothing_missing(
    model: torch.nn.Module, source: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    converted, _ = convert_state_dict(source, model)
    torch.save({"model": converted}, tmp_path / "converted.pth")
    fresh = instantiate(load_config("vfnet/vfnet_r50_fpn_1x.py").model)
    checkpointer = DetectionCheckpointer(fresh)
    path = str(tmp_path / "converted.pth")
    incompatible = checkpointer._load_model(checkpointer._load_file(path))
    assert not incompatible.missing_keys
    assert not incompatible.unexpected_keys
    assert not incompatible.incorrect_shapes


def test_normalised_input(model: torch.nn.Module, golden: Path, numbers: dict) -> None:
    images = model.preprocess_image(batch(golden, "main", rgb=True))
    want = numbers["input_normalised/img0_row0_first16_per_channel"]
    np.testing.assert_allclose(images.tensor[0, :, 0, :16].numpy(), want, rtol=1e-5, atol=1e-6)


def test_features(model: torch.nn.Module, golden: Path, numbers: dict) -> None:
    model.train()
    with torch.no_grad():
        images = model.preprocess_image(batch(golden, "main", rgb=True))
        features = model.backbone(images.tensor)
    for level in LEVELS:
        got = features[level.lower()].double()
        want = numbers[f"neck/{level}/mean_absmean_sum_abssum"]
        np.testing.assert_allclose(got.abs().mean().item(), want[1], rtol=1e-4)
        if f"neck/{level}" in numbers:
            assert_close(got.numpy(), numbers[f"neck/{level}"])


def test_head_outputs(model: torch.nn.Module, golden: Path, numbers: dict) -> None:
    model.train()
    with torch.no_grad():
        images = model.preprocess_image(batch(golden, "main", rgb=True))
        features = model.backbone(images.tensor)
        predictions = model.head([features[name] for name in model.head_in_features])
    for i, level in enumerate(LEVELS):
        assert_close(predictions.logits[i].numpy(), numbers[f"head/cls_logits/{level}"])
        assert_close(predictions.ltrb_init[i].numpy(), numbers[f"head/bbox_pred_init/{level}"])
        assert_close(predictions.ltrb[i].numpy(), numbers[f"head/bbox_pred_refine/{level}"])


@pytest.mark.parametrize("case", CASES)
def test_assignment(model: torch.nn.Module, golden: Path, numbers: dict, case: str) -> None:
    items = batch(golden, case, rgb=True)
    images = model.preprocess_image(items)
    maps = [torch.empty(1, 1, -(-256 // s), -(-320 // s)) for s in model.points.strides]
    sizes = feature_sizes(maps)
    points = model.points.points(sizes, torch.device("cpu"))
    got = model.assign_gt(images, points, sizes, [x["instances"] for x in items])
    want = numbers[f"{case}/assigned_gt"]
    np.testing.assert_array_equal(got.numpy(), np.where(want == -2, -1, want))
    assert (want >= 0).any() == (case != "all_empty")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("source_name", SOURCES)
def test_losses(model: torch.nn.Module, golden: Path, case: str, source_name: str) -> None:
    numbers = np.load(golden / SOURCES[source_name])
    with torch.no_grad():
        losses = training_losses(model, batch(golden, case, rgb=True))
    assert set(losses) == set(LOSSES.values())
    for theirs, ours in LOSSES.items():
        want = float(numbers[f"{case}/loss/{theirs}"])
        np.testing.assert_allclose(losses[ours].item(), want, rtol=1e-4, err_msg=ours)


def test_gradients(
    model: torch.nn.Module, source: dict[str, torch.Tensor], golden: Path, numbers: dict
) -> None:
    """Of every parameter that the reference numbers name."""
    model.zero_grad()
    sum(training_losses(model, batch(golden, "main", rgb=True)).values()).backward()
    names = {k.split("/")[1] for k in numbers if k.startswith("grad/")}
    assert len(names) >= 19
    by_theirs = gradients_by_reference_name(model, source)
    for name in sorted(names):
        grad = by_theirs[name]
        want = float(numbers[f"grad/{name}/norm"])
        np.testing.assert_allclose(grad.norm().item(), want, rtol=1e-3, err_msg=name)
        first = numbers[f"grad/{name}/first16"]
        got = grad.flatten()[: len(first)].numpy()
        np.testing.assert_allclose(got, first, atol=2e-3 * want, err_msg=name)
    model.zero_grad()


def gradients_by_reference_name(
    model: torch.nn.Module, source: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Gradients under the reference's names: its tensors, numbered, go through the converter."""
    order = list(source)
    numbered = {
        k: torch.full_like(v, i, dtype=torch.float64) for i, (k, v) in enumerate(source.items())
    }
    converted, _ = convert_state_dict(numbered, model)
    reference_name = {k: order[int(v.flatten()[0])] for k, v in converted.items()}
    return {reference_name[k]: p.grad for k, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("case", ["main", "uneven"])
@pytest.mark.parametrize("source_name", SOURCES)
@pytest.mark.parametrize("candidates", ["pair", "location"])
def test_detections(
    model: torch.nn.Module, golden: Path, case: str, source_name: str, candidates: str
) -> None:
    numbers = np.load(golden / SOURCES[source_name])
    model.eval()
    model.postprocessor.candidates = candidates
    with torch.no_grad():
        outputs = model(batch(golden, case, rgb=True))
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


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
