"""VFNet, GFL and YOLOF number for number against their reference implementations.

These are MMDetection 3.3, and 2.10 or the VFNet authors' code base (``mmdet2``), and YOLOF's
authors' code on Detectron2. What is of YOLOF alone is in ``test_yolof.py``.
"""

from pathlib import Path

import golden_checks as checks
import numpy as np
import pytest
from golden_references import CASES, LEVELS, detectors

AUTHORS = ("vfnet", "gfl", "yolof")


@detectors(*AUTHORS)
def test_checkpointer_leaves_nothing_missing(reference, model, source, tmp_path: Path) -> None:
    checks.check_checkpointer(model, reference.config, source, tmp_path)


@detectors(*AUTHORS)
def test_normalised_input(model, golden: Path, numbers: dict) -> None:
    checks.check_input(model, golden, numbers)


@detectors("vfnet", "gfl")
def test_features(model, golden: Path, numbers: dict) -> None:
    checks.check_features(model, golden, numbers)


@detectors("vfnet", "gfl")
def test_head_outputs(reference, model, golden: Path, numbers: dict) -> None:
    got = checks.predictions(model, golden)
    for ours, theirs in reference.maps.items():
        for level, of_level in zip(LEVELS, getattr(got, ours), strict=True):
            checks.check_map(of_level, numbers, f"head/{theirs}/{level}")


@pytest.mark.parametrize("case", CASES)
@detectors("vfnet", "gfl")
def test_assignment(model, golden: Path, numbers: dict, case: str) -> None:
    checks.check_assignment(model, golden, numbers, case)


@pytest.mark.parametrize("case", CASES)
@detectors("vfnet", "yolof", source_name="numbers")
def test_losses(reference, model, golden: Path, case: str, source_name: str) -> None:
    numbers = np.load(golden / reference.numbers[source_name])
    losses = checks.training_losses(model, golden, case)
    checks.check_losses(losses, numbers, case, reference.losses)


@pytest.mark.parametrize("case", CASES)
@detectors("gfl", source_name="numbers")
def test_losses_of_gfl(reference, model, golden: Path, case: str, source_name: str) -> None:
    numbers = dict(np.load(golden / reference.numbers[source_name]))
    if case == "all_empty":
        # MMDetection 2.10 divides by the sum of no weights; 3.3 gives 0, and so do we.
        for name in ("loss_bbox", "loss_dfl"):
            want = numbers[f"{case}/loss/{name}"]
            assert (want == 0) if source_name == "mmdet3" else np.isnan(want)
            numbers[f"{case}/loss/{name}"] = 0.0
    losses = checks.training_losses(model, golden, case)
    checks.check_losses(losses, numbers, case, reference.losses)


@detectors(*AUTHORS)
def test_gradients(model, source, golden: Path, numbers: dict) -> None:
    checks.check_gradients(model, source, golden, numbers)


@pytest.mark.parametrize("case", ["main", "uneven"])
@detectors(*AUTHORS, source_name="numbers", candidates="candidates")
def test_detections(
    reference, model, golden: Path, case: str, source_name: str, candidates: str
) -> None:
    numbers = np.load(golden / reference.numbers[source_name])
    checks.check_detections(model, golden, numbers, case, candidates)
