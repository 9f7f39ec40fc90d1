"""VFNet R-50 number for number against MMDetection 3.3 and the authors' code base."""

from pathlib import Path

import golden_checks as checks
import numpy as np
import pytest
import torch
from golden_checks import CASES, LEVELS
from golden_recipe import reference_state_dict

pytestmark = pytest.mark.golden("vfnet")

CONFIG = "vfnet/vfnet_r50_fpn_1x.py"
LOSSES = {"loss_cls": "loss_cls", "loss_bbox": "loss_box_init", "loss_bbox_rf": "loss_box"}
SOURCES = {"mmdet3": "vfnet_r50_fpn.npz", "mmdet2": "vfnet_r50_fpn_mmdet2.npz"}


@pytest.fixture(scope="module")
def numbers(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / SOURCES["mmdet3"]))


@pytest.fixture(scope="module")
def source(golden: Path) -> dict[str, torch.Tensor]:
    return reference_state_dict(golden, "vfnet_r50_fpn", "mmdet_models")


@pytest.fixture(scope="module")
def model(source: dict[str, torch.Tensor]) -> torch.nn.Module:
    return checks.converted_model(CONFIG, source)


def test_checkpointer_leaves_nothing_missing(model, source, tmp_path: Path) -> None:
    checks.check_checkpointer(model, CONFIG, source, tmp_path)


def test_normalised_input(model, golden: Path, numbers: dict) -> None:
    checks.check_input(model, golden, numbers)


def test_features(model, golden: Path, numbers: dict) -> None:
    checks.check_features(model, golden, numbers)


def test_head_outputs(model, golden: Path, numbers: dict) -> None:
    got = checks.predictions(model, golden)
    for i, level in enumerate(LEVELS):
        checks.check_map(got.logits[i], numbers, f"head/cls_logits/{level}")
        checks.check_map(got.ltrb_init[i], numbers, f"head/bbox_pred_init/{level}")
        checks.check_map(got.sides[i], numbers, f"head/bbox_pred_refine/{level}")


@pytest.mark.parametrize("case", CASES)
def test_assignment(model, golden: Path, numbers: dict, case: str) -> None:
    checks.check_assignment(model, golden, numbers, case)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("source_name", SOURCES)
def test_losses(model, golden: Path, case: str, source_name: str) -> None:
    numbers = np.load(golden / SOURCES[source_name])
    losses = checks.training_losses(model, golden, case)
    assert set(losses) == set(LOSSES.values())
    for theirs, ours in LOSSES.items():
        want = float(numbers[f"{case}/loss/{theirs}"])
        np.testing.assert_allclose(losses[ours], want, rtol=1e-4, err_msg=ours)


def test_gradients(model, source, golden: Path, numbers: dict) -> None:
    checks.check_gradients(model, source, golden, numbers)


@pytest.mark.parametrize("case", ["main", "uneven"])
@pytest.mark.parametrize("source_name", SOURCES)
@pytest.mark.parametrize("candidates", ["pair", "location"])
def test_detections(model, golden: Path, case: str, source_name: str, candidates: str) -> None:
    numbers = np.load(golden / SOURCES[source_name])
    checks.check_detections(model, golden, numbers, case, candidates)
