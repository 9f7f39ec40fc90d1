"""What GFL believes of the sides of its boxes reaches the user, drawn or as numbers."""

from pathlib import Path

import demo as tool
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Instances
from PIL import Image
from vfnet_yolof import Predictor
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.drawing.visualization import SIDE_COLORS, draw_distributions
from vfnet_yolof.inference.demo import InputError, collect_inputs, run_on_files

CONFIG = "gfl/gfl_small_shapes.py"
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]
RESIZE = (
    "dataloader.test.mapper.augmentations=[{_target_:detectron2.data.transforms.Resize,"
    "shape:[128,128]}]"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random ones, with scores and distributions that differ from place to place."""
    torch.manual_seed(0)
    model = instantiate(load_config(CONFIG).model)
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    torch.nn.init.zeros_(model.head.cls_logits.bias)
    torch.nn.init.normal_(model.head.reg.weight, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "gfl.pth"
    torch.save({"model": model.state_dict(), "class_names": NAMES}, path)
    return path


@pytest.fixture(scope="module")
def predictor(weights) -> Predictor:
    return Predictor(CONFIG, weights, device="cpu", score_thresh=0.1, overrides=[RESIZE])


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Of another shape than what the network sees: x and y have different scales."""
    patches = np.random.default_rng(0).integers(0, 200, (10, 14, 3), dtype=np.uint8)
    return patches.repeat(8, 0).repeat(8, 1)


@pytest.fixture(scope="module")
def found(predictor: Predictor, picture: np.ndarray) -> Instances:
    return predictor.predict_distributions(picture)


def test_the_detections_are_the_same(predictor: Predictor, picture: np.ndarray, found: Instances):
    plain = predictor(picture)
    assert len(found) == len(plain) > 0
    assert torch.equal(found.pred_boxes.tensor, plain.pred_boxes.tensor)
    assert torch.equal(found.scores, plain.scores)
    assert not plain.has("side_probabilities")


def test_the_distributions_are_those_of_the_boxes(found: Instances):
    count = len(found)
    probabilities = found.side_probabilities
    assert probabilities.shape == (count, 4, 17)
    assert torch.allclose(probabilities.sum(-1), torch.ones(count, 4), atol=1e-5)
    bins = torch.arange(17.0)
    mean = (probabilities @ bins) * found.side_intervals
    assert torch.allclose(found.side_mean, mean, atol=1e-3)
    sign = torch.tensor([-1.0, -1, 1, 1])
    sides = found.side_points.repeat(1, 2) + sign * mean
    limit = torch.tensor([112.0, 80, 112, 80])
    inside = torch.minimum(sides.clamp(min=0), limit)
    assert torch.allclose(found.pred_boxes.tensor, inside, atol=1e-2)
    square = (bins * found.side_intervals[..., None] - mean[..., None]).square()
    assert torch.allclose(found.side_std, (probabilities * square).sum(-1).sqrt(), atol=1e-2)
    entropy = -(probabilities * probabilities.log()).sum(-1)
    assert torch.allclose(found.side_entropy, entropy, atol=1e-4)


def test_the_drawing_shows_them(picture: np.ndarray, found: Instances):
    drawn = draw_distributions(picture, found, NAMES, scale=6)
    assert drawn.shape == (6 * 80, 6 * 112, 3)
    assert draw_distributions(picture, found, NAMES).shape == picture.shape
    for color in SIDE_COLORS:
        assert (drawn == color).all(-1).any()
        assert not (picture == color).all(-1).any()


def test_the_demo_draws_them(weights: Path, picture: np.ndarray, tmp_path: Path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    arguments = ["--config-file", CONFIG, "--weights", str(weights), "--device", "cpu"]
    arguments += ["--input", str(tmp_path / "a.png"), "--score-threshold", "0.1"]
    for folder, option in (("plain", []), ("drawn", ["--draw-distributions"])):
        assert tool.main([*arguments, "--output", str(tmp_path / folder), *option]) == 0
    plain, drawn = (np.asarray(Image.open(tmp_path / f / "a.png")) for f in ("plain", "drawn"))
    for color in SIDE_COLORS:
        assert (drawn == color).all(-1).any()
        assert not (plain == color).all(-1).any()


def test_star_and_distributions_exclude_each_other(predictor: Predictor, tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        tool.build_parser().parse_args(["--draw-star", "--draw-distributions"])
    assert "not allowed with" in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be drawn together"):
        run_on_files(predictor, [], tmp_path, star=True, distributions=True)


def test_other_models_have_none(predictor: Predictor, picture, tmp_path: Path, monkeypatch):
    with pytest.raises(TypeError, match="GFL has no star points"):
        predictor.predict_star(picture)
    Image.fromarray(picture).save(tmp_path / "a.png")
    sources = collect_inputs([tmp_path / "a.png"])
    monkeypatch.setattr(type(predictor.model), "extra_fields", {})
    with pytest.raises(TypeError, match="no distributions of box sides"):
        predictor.predict_distributions(picture)
    with pytest.raises(InputError, match="no distributions to draw"):
        run_on_files(predictor, sources, tmp_path / "out", distributions=True)
