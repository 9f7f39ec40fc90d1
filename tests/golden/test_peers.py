"""The detectors that the papers compare with, number for number against MMDetection 3.3.

Each with the focal loss and, where there are numbers of it, with the quality focal loss.
"""

from pathlib import Path

import golden_checks as checks
import numpy as np
import pytest
import torch
from golden_checks import CASES, detectors
from vfnet_yolof.modeling.losses import QualityFocalLoss

PEERS = ("retinanet", "atss", "foveabox", "reppoints")


@pytest.fixture
def with_loss(model, source_name: str) -> torch.nn.Module:
    """The model with the classification loss of the numbers."""
    own = model.cls_loss
    if source_name == "qfl":
        model.cls_loss = QualityFocalLoss(beta=2.0)
    yield model
    model.cls_loss = own


@detectors(*PEERS)
def test_checkpointer_leaves_nothing_missing(reference, model, source, tmp_path: Path) -> None:
    checks.check_checkpointer(model, reference.config, source, tmp_path)


@detectors(*PEERS)
def test_features(model, golden: Path, numbers: dict) -> None:
    checks.check_input(model, golden, numbers)
    checks.check_features(model, golden, numbers)


@detectors(*PEERS)
def test_head_outputs(reference, model, golden: Path, numbers: dict) -> None:
    got = checks.predictions(model, golden)
    for ours, theirs in reference.maps.items():
        for level, of_level in zip(reference.levels, getattr(got, ours), strict=True):
            checks.check_map(of_level, numbers, f"head/{theirs}/{level}")


@pytest.mark.parametrize("case", CASES)
@detectors(*PEERS)
def test_assignment(reference, model, golden: Path, numbers: dict, case: str) -> None:
    """Classes of all rows, boxes of the positives, and what is ignored or lies in the padding."""
    got = checks.assigned(model, golden, case)
    names = ("assigned_gt",) if len(got) == 1 else ("init_assigner", "refine_assigner")
    for name, rows in zip(names, got, strict=True):
        np.testing.assert_array_equal(rows, numbers[f"{case}/{name}"], err_msg=name)


@pytest.mark.parametrize("case", CASES)
@detectors(*PEERS, source_name="numbers")
def test_losses(reference, with_loss, golden: Path, case: str, source_name: str) -> None:
    numbers = np.load(golden / reference.numbers[source_name])
    losses = checks.training_losses(with_loss, golden, case)
    checks.check_losses(losses, numbers, case, reference.losses)


@detectors(*PEERS, source_name="numbers")
def test_gradients(reference, with_loss, source, golden: Path, source_name: str) -> None:
    numbers = np.load(golden / reference.numbers[source_name])
    checks.check_gradients(with_loss, source, golden, numbers, at_least=13)


@detectors(*PEERS)
def test_quality_targets(reference, model, golden: Path, monkeypatch) -> None:
    """The numbers themselves that the quality focal loss is given."""
    want = np.load(golden / reference.numbers["qfl"])["main/quality_of_positives"]
    got = checks.qualities(model, golden, monkeypatch)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["main", "uneven"])
@detectors(*PEERS, candidates="candidates")
def test_detections(model, golden: Path, numbers: dict, case: str, candidates: str) -> None:
    checks.check_detections(model, golden, numbers, case, candidates)
