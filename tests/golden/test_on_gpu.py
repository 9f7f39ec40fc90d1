"""The reference numbers of VFNet, GFL and YOLOF on a GPU.

The tests of these numbers on the CPU are in the other files; these take the same checks. They are
not marked ``golden``: a machine without a GPU has all golden tests without them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import golden_checks as checks
import numpy as np
import pytest
import torch
from benchmarks.measures import agreement
from golden_references import CASES
from torch import nn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.parametrize("reference", ["vfnet", "gfl", "yolof"], indirect=True),
]


@pytest.fixture
def on_gpu(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Module]:
    """A copy there; its convolutions compute in full float32, not in TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    moved = copy.deepcopy(model).cuda()
    yield moved
    del moved
    torch.cuda.empty_cache()


@pytest.mark.parametrize("case", ["main", "uneven"])
def test_detections(model: nn.Module, on_gpu: nn.Module, golden: Path, case: str) -> None:
    """Those of the CPU, up to the order of nearly equal scores."""
    results = []
    for one in (on_gpu, model):
        with torch.inference_mode():
            outputs = one.eval()(checks.inputs(one, golden, case))
        results.append([x["instances"].to("cpu") for x in outputs])
    gaps = agreement(*results)
    assert gaps["boxes_px"] < 0.05 and gaps["scores"] < 1e-3 and gaps["counts"] == 0
    assert all(len(x) == one.postprocessor.max_detections for x in results[0])


@pytest.mark.parametrize("case", CASES)
def test_losses(reference, on_gpu: nn.Module, golden: Path, numbers: dict, case: str) -> None:
    losses = checks.training_losses(on_gpu, golden, case)
    for theirs, ours in reference.losses.items():
        want = float(numbers[f"{case}/loss/{theirs}"])
        np.testing.assert_allclose(losses[ours], want, rtol=1e-3, err_msg=ours)


def test_gradients(on_gpu: nn.Module, source, golden: Path, numbers: dict) -> None:
    checks.check_gradients(on_gpu, source, golden, numbers)
