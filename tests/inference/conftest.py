"""A predictor that finds something in every image."""

from pathlib import Path

import pytest
from demo_inputs import CONFIG, save_weights
from vfnet_yolof import Predictor


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "vfnet.pth")


@pytest.fixture(scope="module")
def predictor(weights: Path) -> Predictor:
    return Predictor(CONFIG, weights, device="cpu", score_thresh=0.1, batch_size=3)
