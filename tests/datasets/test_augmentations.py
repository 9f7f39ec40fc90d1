from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st
from vfnet_yolof.data import AugInput, RandomShift


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """Every pixel is told by its colour: R its column, G its row, B never 0."""
    image = np.full((height, width, 3), 9, dtype=np.uint8)
    image[..., 0] = np.arange(width)
    image[..., 1] = np.arange(height)[:, None]
    return image


def apply(augmentation: T.Augmentation, image: np.ndarray, boxes=(), seed: int = 0):
    np.random.seed(seed)
    aug_input = AugInput(image, np.array(boxes, dtype=np.float64).reshape(-1, 4))
    transform = augmentation(aug_input)
    return aug_input, transform


class TestRandomShift:
    @given(seed=st.integers(0, 999))
    def test_pixels_boxes_and_border_move_together(self, seed: int) -> None:
        image = picture()
        shifted, window = apply(RandomShift(32, prob=1), image, [[20, 10, 30, 25]], seed)
        dx, dy = -window.left, -window.top
        assert shifted.image.shape == image.shape
        want = np.zeros_like(image)
        for y in range(40):
            for x in range(60):
                if 0 <= y - dy < 40 and 0 <= x - dx < 60:
                    want[y, x] = image[y - dy, x - dx]
        assert (shifted.image == want).all()
        moved = np.array([20 + dx, 10 + dy, 30 + dx, 25 + dy]).clip(0, [60, 40, 60, 40])
        assert shifted.boxes.tolist() == [moved.tolist()]
        x0, y0, x1, y1 = shifted.content.astype(int).tolist()
        assert (shifted.image[y0:y1, x0:x1, 2] == 9).all()
        assert (shifted.image[..., 2] == 9).sum() == (x1 - x0) * (y1 - y0)

    def test_draws_every_shift_and_half_of_the_pictures(self) -> None:
        np.random.seed(0)
        drawn = [RandomShift(2).get_transform(picture()) for _ in range(600)]
        shifts = {(t.left, t.top) for t in drawn if not isinstance(t, T.NoOpTransform)}
        assert shifts == {(x, y) for x in range(-2, 3) for y in range(-2, 3)}
        assert sum(isinstance(t, T.NoOpTransform) for t in drawn) == pytest.approx(300, abs=50)
        assert isinstance(RandomShift(prob=0).get_transform(picture()), T.NoOpTransform)

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="max_shift.*-1"):
            RandomShift(-1)
        with pytest.raises(ValueError, match="prob.*1.5"):
            RandomShift(prob=1.5)
