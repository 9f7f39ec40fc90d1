"""What the predictor draws is what ``draw_instances`` and its like draw, enlarged."""

from pathlib import Path

import numpy as np
import pytest
from demo_inputs import NAMES
from PIL import Image
from vfnet_yolof import Predictor
from vfnet_yolof.drawing.visualization import STAR_POINT_COLOR, draw_instances


def noise() -> np.ndarray:
    """(64, 96, 3) uint8, B, G, R."""
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def test_what_was_found(predictor: Predictor):
    image = noise()
    found = predictor(image)[:3]
    drawn = predictor.draw(image, found)
    assert drawn.size == (8 * 96, 8 * 64)
    expected = draw_instances(image[:, :, ::-1], found, NAMES, scale=8)
    assert (np.asarray(drawn) == expected).all()
    assert predictor.draw(image[:, :, ::-1], found, input_format="RGB") == drawn


def test_what_is_found_now(predictor: Predictor, tmp_path: Path):
    image = noise()
    Image.fromarray(image[:, :, ::-1].copy()).save(tmp_path / "a.png")
    drawn = predictor.draw(image, predictor(image))
    assert predictor.draw(tmp_path / "a.png") == predictor.draw(image) == drawn
    predictor.save(tmp_path / "new" / "b.png", tmp_path / "a.png")
    assert (np.asarray(Image.open(tmp_path / "new" / "b.png")) == np.asarray(drawn)).all()


def test_star_points(predictor: Predictor):
    image = noise()
    drawn = np.asarray(predictor.draw(image, predictor.predict_star(image)))
    assert (drawn == STAR_POINT_COLOR).all(-1).any()
    assert not (np.asarray(predictor.draw(image)) == STAR_POINT_COLOR).all(-1).any()


def test_what_cannot_be_drawn(predictor: Predictor, tmp_path: Path):
    with pytest.raises(TypeError, match="not list"):
        predictor.draw([noise()])
    with pytest.raises(ValueError, match="input_format"):
        predictor.draw(noise(), input_format="HSV")
    with pytest.raises(ValueError, match="unknown file extension"):
        predictor.save(tmp_path / "a.nothing", noise())
