"""The reference numbers of MMDetection 3.3 after our models were made faster."""

from pathlib import Path

import golden_checks as checks
import pytest
import vfnet_yolof
from golden_references import LEVELS
from vfnet_yolof.optimization import winograd

pytestmark = [
    pytest.mark.golden,
    pytest.mark.parametrize("reference", ["vfnet", "gfl"], indirect=True),
]


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
    for i, level in enumerate(LEVELS):
        checks.check_map(got.logits[i], numbers, f"head/cls_logits/{level}")
