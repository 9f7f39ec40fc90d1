"""Converted detectors and their reference numbers; a test names its own by `detectors`."""

from pathlib import Path

import golden_checks as checks
import numpy as np
import pytest
import torch
from golden_checks import REFERENCES, Reference
from golden_recipe import reference_state_dict


@pytest.fixture(scope="module")
def reference(request: pytest.FixtureRequest) -> Reference:
    return REFERENCES[request.param]


@pytest.fixture(scope="module")
def numbers(golden: Path, reference: Reference) -> dict[str, np.ndarray]:
    return dict(np.load(golden / next(iter(reference.numbers.values()))))


@pytest.fixture(scope="module")
def source(golden: Path, reference: Reference) -> dict[str, torch.Tensor]:
    return reference_state_dict(golden, reference.name, reference.rules)


@pytest.fixture(scope="module")
def model(reference: Reference, source: dict[str, torch.Tensor]) -> torch.nn.Module:
    return checks.converted_model(reference, source)
