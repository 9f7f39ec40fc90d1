"""The reference numbers of MMDetection 3.3 after our models were made faster."""

from pathlib import Path

import golden_checks as checks
import numpy as np
import pytest
import torch
import vfnet_yolof
from golden_recipe import reference_state_dict
from vfnet_yolof.optimization import winograd

pytestmark = pytest.mark.golden

MODELS = {
    "vfnet_r50_fpn": "vfnet/vfnet_r50_fpn_1x.py",
    "gfl_r50_fpn": "gfl/gfl_r50_fpn_1x.py",
}


@pytest.fixture(scope="module", params=MODELS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def numbers(golden: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(golden / f"{name}.npz"))


@pytest.fixture(scope="module")
def source(golden: Path, name: str) -> dict[str, torch.Tensor]:
    return reference_state_dict(golden, name, "mmdet_models")


@pytest.fixture(scope="module")
def model(name: str, source: dict[str, torch.Tensor]) -> torch.nn.Module:
    return checks.converted_model(MODELS[name], source)


@pytest.fixture(autouse=True)
def winograd_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures and maps of the reference are small."""
    monkeypatch.setattr(winograd, "MIN_TILES", 1)


@pytest.mark.parametrize("case", ["main", "uneven"])
def test_inference(model, golden: Path, numbers: dict, case: str) -> None:
    fast = vfnet_yolof.optimize(model)
    for _ in range(2):  # large weights are packed when a size comes again
        checks.check_detections(fast, golden, numbers, case, "pair")


def test_head_outputs(model, golden: Path, numbers: dict) -> None:
    got = checks.predictions(vfnet_yolof.optimize(model), golden)
    for i, level in enumerate(checks.LEVELS):
        checks.check_map(got.logits[i], numbers, f"head/cls_logits/{level}")
