"""The comparison of maps of which only a part is kept."""

import golden_checks as checks
import numpy as np
import pytest
import torch


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 80, 32, 40, generator=torch.Generator().manual_seed(0)) - 4.6


@pytest.fixture
def kept(logits: torch.Tensor) -> dict[str, np.ndarray]:
    return {
        "map/every_4th_channel": logits[:, ::4].numpy().copy(),
        "map/mean_over_channels": logits.double().mean(1).float().numpy(),
        "map/mean_over_locations": logits.double().mean((2, 3)).float().numpy(),
    }


def test_rounding_is_no_difference(logits: torch.Tensor, kept: dict) -> None:
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    checks.check_map(logits + 2e-6 * noise, kept, "map")


@pytest.mark.parametrize("channel", [4, 5])
def test_one_value_that_differs_is_seen(logits: torch.Tensor, kept: dict, channel: int) -> None:
    logits[1, channel, 20, 30] += 0.01
    with pytest.raises(AssertionError):
        checks.check_map(logits, kept, "map")


def test_channels_in_another_order_are_seen(logits: torch.Tensor, kept: dict) -> None:
    logits[:, [1, 2]] = logits[:, [2, 1]]
    with pytest.raises(AssertionError):
        checks.check_map(logits, kept, "map")
