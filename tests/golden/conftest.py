"""Converted detectors and their reference numbers; a test names its own by `detectors`."""

from pathlib import Path

import golden_checks as checks
import numpy as np
import pytest
import torch
from golden_recipe import reference_state_dict
from golden_references import REFERENCES, Reference


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
    return checks.remember_network(checks.converted_model(reference, source))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests of one detector behind each other, so that its model is built once for all.

    By itself pytest groups them by the number of the parameter, which is another in each test.
    """
    places = [i for i, item in enumerate(items) if _detector(item)]
    ours = sorted((items[i] for i in places), key=lambda item: (item.path, _detector(item)))
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def _detector(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    if callspec is None or not item.path.is_relative_to(Path(__file__).parent):
        return ""
    return str(callspec.params.get("reference", ""))
