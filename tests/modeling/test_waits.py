"""What assignment and losses ask of the device before they can go on: each makes a GPU idle."""

from collections import Counter
from typing import Any

import pytest
import torch
from distributed_worker import MODELS
from tiny import picture
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# These give Python a number, or a tensor whose length depends on values.
READ = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
SIZED = {aten.nonzero.default, aten.masked_select.default, aten._unique2.default}


class Waits(TorchDispatchMode):
    """Counts the operations that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READ:
            self.counts["read"] += 1
        if func in SIZED or (func is aten.index.Tensor and _has_mask(args[1])):
            self.counts["sized"] += 1
        return func(*args, **(kwargs or {}))


def _has_mask(indices: Any) -> bool:
    return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in indices)


def test_the_counter_counts() -> None:
    x = torch.tensor([1.0, -1.0, 2.0])
    with Waits() as waits:
        float(x.sum())
        x[x > 0]
        (x > 0).nonzero()
    assert waits.counts == {"read": 1, "sized": 2}


@pytest.mark.parametrize("name", ["vfnet", "atss", "gfl", "yolof"])
@pytest.mark.parametrize("num_boxes", [1, 40])
def test_losses_wait_once_for_the_positives(name: str, num_boxes: int) -> None:
    """And never for a value, whatever the number of boxes."""
    model = MODELS[name]()
    corners = torch.rand(num_boxes, 2, generator=torch.Generator().manual_seed(0)) * 30
    boxes = torch.cat([corners, corners + 20], dim=1)
    batch = [picture(boxes, seed=seed) for seed in (1, 2)]
    images = model.preprocess_image(batch)
    maps = model.backbone(images.tensor)
    features = [maps[name] for name in model.head_in_features]
    predictions = model.head(features)
    with Waits() as waits:
        losses = model.forward_training(
            images, features, predictions, [x["instances"] for x in batch]
        )
    assert all(value.requires_grad for value in losses.values())
    assert waits.counts["read"] == 0, waits.counts
    assert waits.counts["sized"] <= 1, waits.counts
