"""The detectors that the papers compare with, number for number against MMDetection 3.3.

Each with the focal loss and, where there are numbers of it, with the quality focal loss.
"""

import dataclasses
from pathlib import Path

import golden_checks as checks
import numpy as np
import pytest
import torch
from golden_recipe import Images
from golden_references import CASES, detectors
from vfnet_yolof.modeling.losses import QualityFocalLoss

SIGMOID = ("retinanet", "atss", "foveabox", "reppoints")
PEERS = (*SIGMOID, "ssd")


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


@detectors(*SIGMOID)
def test_quality_targets(reference, model, golden: Path, monkeypatch) -> None:
    """The numbers themselves that the quality focal loss is given."""
    want = np.load(golden / reference.numbers["qfl"])["main/quality_of_positives"]
    got = checks.qualities(model, golden, monkeypatch)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["main", "uneven"])
@detectors(*PEERS, candidates="candidates")
def test_detections(model, golden: Path, numbers: dict, case: str, candidates: str) -> None:
    checks.check_detections(model, golden, numbers, case, candidates)


def hard_negatives(model, golden: Path, case: str, monkeypatch) -> list[np.ndarray]:
    """The anchors that count as negatives, of each image."""
    chosen, hardest = [], model.cls_loss.hardest

    def record(*args):
        chosen.append(hardest(*args))
        return chosen[-1]

    monkeypatch.setattr(model.cls_loss, "hardest", record)
    checks.training_losses(model, golden, case)
    return [x.nonzero()[:, 0].numpy() for x in chosen[0]]


@pytest.mark.parametrize("case", CASES)
@detectors("ssd")
def test_hard_negatives(model, golden: Path, numbers: dict, case: str, monkeypatch) -> None:
    for image, got in enumerate(hard_negatives(model, golden, case, monkeypatch)):
        np.testing.assert_array_equal(got, numbers[f"{case}/hard_negatives/{image}"])


@detectors("ssd")
def test_ssd_at_its_own_size(reference, model, golden: Path, monkeypatch) -> None:
    """512 x 512 pixels, on which every level has all of its cells."""
    file = "ssd512_vgg16_512x512.npz"
    own_size = dataclasses.replace(reference, images=Images(file, size=(512, 512), seed=2))
    monkeypatch.setattr(model, "reference", own_size)
    numbers = np.load(golden / file)
    (rows,) = checks.assigned(model, golden, "main")
    np.testing.assert_array_equal(rows, numbers["main/assigned_gt"])
    assert rows.shape[1] == 24564
    checks.check_losses(
        checks.training_losses(model, golden, "main"), numbers, "main", reference.losses
    )
    for image, got in enumerate(hard_negatives(model, golden, "main", monkeypatch)):
        np.testing.assert_array_equal(got, numbers[f"main/hard_negatives/{image}"])
    checks.check_detections(model, golden, numbers, "main", "pair")
