from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.data import AugInput, Expand, MinIoURandomCrop, PhotoMetricDistortion
from vfnet_yolof.data.ssd_augmentations import PhotoMetricTransform


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """Every pixel is told by its colour: R its column, G its row."""
    image = np.full((height, width, 3), 9, dtype=np.uint8)
    image[..., 0] = np.arange(width)
    image[..., 1] = np.arange(height)[:, None]
    return image


def apply(augmentation: T.Augmentation, image: np.ndarray, boxes=(), seed: int = 0):
    np.random.seed(seed)
    found = AugInput(image, np.array(boxes, dtype=np.float64).reshape(-1, 4))
    return found, augmentation(found)


SEEDS = st.integers(0, 999)
BOXES = [[5, 5, 25, 20], [20, 10, 50, 35], [2, 30, 8, 38]]


class TestExpand:
    @given(seed=SEEDS)
    def test_the_image_lies_in_a_larger_one_of_the_mean_colour(self, seed: int) -> None:
        image = picture()
        found, window = apply(Expand(fill=[1.9, 2.0, 3.0], prob=1), image, BOXES, seed)
        left, top = -window.left, -window.top
        height, width = found.image.shape[:2]
        assert 40 <= height <= 160 and 60 <= width <= 240
        assert abs(width / 60 - height / 40) < 1 / 40
        assert (found.image[top : top + 40, left : left + 60] == image).all()
        border = np.ones((height, width), dtype=bool)
        border[top : top + 40, left : left + 60] = False
        assert (found.image[border] == [1, 2, 3]).all()
        np.testing.assert_array_equal(found.boxes, np.array(BOXES) + [left, top, left, top])

    def test_half_of_the_images(self) -> None:
        np.random.seed(0)
        drawn = [Expand().get_transform(picture()) for _ in range(400)]
        assert 150 < sum(isinstance(t, T.NoOpTransform) for t in drawn) < 250


class TestMinIoURandomCrop:
    @given(seed=SEEDS)
    def test_boxes_and_window(self, seed: int) -> None:
        """Every box overlaps the window enough; those whose centre is outside are lost."""
        image, boxes = picture(), np.array(BOXES, dtype=float)
        found, window = apply(MinIoURandomCrop(min_ious=[0.1]), image, BOXES, seed)
        if isinstance(window, T.NoOpTransform):
            assert (found.image == image).all()
            return
        height, width = found.image.shape[:2]
        assert 0.3 * 40 - 1 <= height <= 40 and 0.3 * 60 - 1 <= width <= 60
        corner = np.array([window.left, window.top])
        x1, y1 = corner
        assert (found.image == image[y1 : y1 + height, x1 : x1 + width]).all()
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centers > corner) & (centers < corner + [width, height])).all(axis=1)
        assert inside.any()
        kept = (found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1)
        np.testing.assert_array_equal(kept, inside)
        want = (boxes - np.tile(corner, 2)).clip(0, [width, height, width, height])
        np.testing.assert_array_equal(found.boxes[inside], want[inside])
        # The content is no box: it is clipped, not lost.
        np.testing.assert_array_equal(found.content, [0, 0, width, height])

    def test_the_drawn_iou_is_kept(self, monkeypatch) -> None:
        monkeypatch.setattr(np.random, "choice", lambda ious: 0.7)
        for seed in range(20):
            _, window = apply(MinIoURandomCrop(), picture(), [[0, 0, 60, 40]], seed)
            assert window.width * window.height >= 0.7 * 60 * 40

    def test_without_boxes_any_window_will_do(self) -> None:
        sizes = {
            apply(MinIoURandomCrop(), picture(), (), seed)[0].image.shape for seed in range(20)
        }
        assert len(sizes) > 5


class TestPhotoMetricDistortion:
    def test_nothing_changes_nothing(self) -> None:
        same = PhotoMetricTransform(0.0, 1.0, 1.0, 0.0, True, [0, 1, 2])
        assert (same.apply_image(picture()) == picture()).all()

    @pytest.mark.parametrize("first", [True, False])
    def test_order_of_brightness_and_contrast(self, first: bool) -> None:
        """Not clipped: values beyond 255 stay."""
        changed = PhotoMetricTransform(10.0, 1.5, 1.0, 0.0, first, [2, 1, 0])
        got = changed.apply_image(np.full((1, 1, 3), [100, 150, 250], dtype=np.uint8))
        np.testing.assert_allclose(got[0, 0], [390, 240, 165])
        assert got.dtype == np.float32

    def test_hue_and_saturation(self) -> None:
        red = np.full((1, 1, 3), [200, 0, 0], dtype=np.uint8)
        turned = PhotoMetricTransform(0.0, 1.0, 1.0, 120.0, True, [0, 1, 2]).apply_image(red)
        np.testing.assert_allclose(turned[0, 0], [0, 200, 0], atol=1e-3)
        paler = PhotoMetricTransform(0.0, 1.0, 0.5, 0.0, True, [0, 1, 2]).apply_image(red)
        np.testing.assert_allclose(paler[0, 0], [200, 100, 100], atol=1e-3)

    def test_contrast_before_or_after_hue_matters_only_with_them(self) -> None:
        a, b = (
            PhotoMetricTransform(20.0, 0.7, 1.3, 10.0, first, [0, 1, 2]).apply_image(picture())
            for first in (True, False)
        )
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=0.1)  # both are linear in the value

    def test_each_half_of_the_time(self) -> None:
        np.random.seed(0)
        drawn = [PhotoMetricDistortion().get_transform(picture()) for _ in range(400)]
        for count in (
            sum(t.brightness != 0 for t in drawn),
            sum(t.contrast != 1 for t in drawn),
            sum(t.saturation != 1 for t in drawn),
            sum(t.hue != 0 for t in drawn),
            sum(t.contrast_first for t in drawn),
        ):
            assert 150 < count < 250
        assert {tuple(t.order) for t in drawn if t.order != [0, 1, 2]}
        assert max(abs(t.brightness) for t in drawn) <= 32
        assert max(abs(t.hue) for t in drawn) <= 18


@pytest.mark.parametrize(
    "make",
    [
        lambda: Expand(ratio=[0.5, 4.0]),
        lambda: Expand(prob=1.5),
        lambda: MinIoURandomCrop(min_ious=[1.1]),
        lambda: MinIoURandomCrop(min_share=0.0),
        lambda: MinIoURandomCrop(shape=[2.0, 0.5]),
        lambda: PhotoMetricDistortion(brightness=-1.0),
        lambda: PhotoMetricDistortion(contrast=[1.5, 0.5]),
    ],
)
def test_wrong_options_are_refused(make) -> None:
    with pytest.raises(ValueError, match="must"):
        make()


def test_the_recipe_gives_squares_of_512() -> None:
    from detectron2.config import instantiate

    augmentations = load_config("ssd/ssd512_vgg16.py").dataloader.train.mapper.augmentations
    for seed in range(10):
        np.random.seed(seed)
        found = AugInput(picture(), np.array(BOXES, dtype=float))
        T.AugmentationList(instantiate(augmentations))(found)
        assert found.image.shape == (512, 512, 3)
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1).any()
