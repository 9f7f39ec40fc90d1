from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st
from vfnet_yolof.data import (
    AugInput,
    CutOut,
    JitterCrop,
    RandomDistort,
    RandomShift,
    RelativeRangeCrop,
    ResizeIndependentEdges,
    ResizeSquare,
)
from vfnet_yolof.data.augmentations import CUTOUT_SHAPES
from vfnet_yolof.data.transforms import DistortTransform, FillTransform, WindowTransform


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


class TestResizeIndependentEdges:
    @given(seed=st.integers(0, 999), height=st.integers(20, 2000), width=st.integers(20, 2000))
    def test_fits_both_edges_and_keeps_the_shape(self, seed: int, height: int, width: int) -> None:
        np.random.seed(seed)
        resize = ResizeIndependentEdges([750, 2100], [500, 1400])
        made = resize.get_transform(np.empty((height, width, 3), dtype=np.uint8))
        np.random.seed(seed)
        long, short = np.random.randint(750, 2101), np.random.randint(500, 1401)
        assert max(made.new_h, made.new_w) <= long
        assert min(made.new_h, made.new_w) <= short
        assert made.new_h == pytest.approx(
            made.new_w * height / width, abs=0.5 * height / width + 1
        )
        assert max(made.new_h, made.new_w) == long or min(made.new_h, made.new_w) == short

    def test_every_value_of_both_ranges_is_drawn(self) -> None:
        np.random.seed(0)
        resize = ResizeIndependentEdges([8, 10], [5, 6])
        square = np.empty((3, 3), dtype=np.uint8)
        strip = np.empty((1, 100), dtype=np.uint8)
        assert {resize.get_transform(square).new_w for _ in range(99)} == {5, 6}
        assert {resize.get_transform(strip).new_w for _ in range(99)} == {8, 9, 10}
        assert resize.get_transform(strip).new_h == 1  # at least

    @pytest.mark.parametrize("bounds", [[10], [20, 10], [0, 5], [1, 2, 3]])
    def test_bad_ranges(self, bounds: list[int]) -> None:
        with pytest.raises(ValueError, match="short_edge.*low, high"):
            ResizeIndependentEdges([1, 9], bounds)


def test_resize_square() -> None:
    np.random.seed(0)
    sides = [ResizeSquare(640, [0.8, 1.2]).get_transform(picture()) for _ in range(200)]
    assert all(t.new_h == t.new_w for t in sides)
    assert 512 <= min(t.new_h for t in sides) < 540
    assert 740 < max(t.new_h for t in sides) <= 768
    assert ResizeSquare(64).get_transform(picture()).new_w == 64
    with pytest.raises(ValueError, match="scale.*low, high"):
        ResizeSquare(640, [1.2, 0.8])
    with pytest.raises(ValueError, match="size.*0"):
        ResizeSquare(0)


class TestRelativeRangeCrop:
    @given(seed=st.integers(0, 999))
    def test_shows_a_window_of_the_picture(self, seed: int) -> None:
        box = [25.0, 15, 35, 25]  # in every window of three quarters of the sides
        cropped, window = apply(RelativeRangeCrop(0.75, prob=1), picture(), [box], seed)
        height, width = cropped.image.shape[:2]
        assert 30 <= height <= 40
        assert 45 <= width <= 60
        left, top = cropped.image[0, 0, :2].tolist()
        assert (cropped.image == picture()[top : top + height, left : left + width]).all()
        assert cropped.boxes.tolist() == [[25 - left, 15 - top, 35 - left, 25 - top]]
        assert cropped.content.tolist() == [0, 0, width, height]

    def test_sizes_and_places_reach_their_limits(self) -> None:
        np.random.seed(0)
        crops = [RelativeRangeCrop(0.9, prob=1).get_transform(picture(), None) for _ in range(900)]
        assert {c.height for c in crops} == set(range(36, 41))
        assert {c.width for c in crops} == set(range(54, 61))
        assert {c.left + c.width for c in crops} == set(range(54, 61))
        skipped = [RelativeRangeCrop(0.9).get_transform(picture(), None) for _ in range(400)]
        assert sum(isinstance(c, T.NoOpTransform) for c in skipped) == pytest.approx(200, abs=40)

    def test_keeps_the_picture_where_every_box_would_be_lost(self) -> None:
        crop = RelativeRangeCrop(0.75, prob=1)
        corner = [[0.0, 0, 2, 2]]
        kept, lost_one = 0, 0
        for seed in range(100):
            alone, _ = apply(crop, picture(), corner, seed)
            assert (alone.boxes[:, 2:] > alone.boxes[:, :2]).all()
            kept += alone.image.shape == picture().shape
            both, window = apply(crop, picture(), [*corner, [25, 15, 35, 25]], seed)
            assert isinstance(window, WindowTransform)
            lost_one += not (both.boxes[0, 2:] > both.boxes[0, :2]).all()
        assert kept == lost_one > 50

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="min_share.*0"):
            RelativeRangeCrop(0)
        with pytest.raises(ValueError, match="prob"):
            RelativeRangeCrop(prob=-0.1)


class TestJitterCrop:
    @given(seed=st.integers(0, 999))
    def test_moves_each_border_and_fills_with_the_mean_colour(self, seed: int) -> None:
        image = picture()
        jittered, window = apply(JitterCrop(0.3), image, [[20, 10, 30, 25]], seed)
        assert abs(window.left) <= 18
        assert abs(window.top) <= 12
        assert abs(window.left + window.width - 60) <= 18
        assert abs(window.top + window.height - 40) <= 12
        assert jittered.image.shape == (window.height, window.width, 3)
        x0, y0, x1, y1 = jittered.content.astype(int).tolist()
        shown = jittered.image[y0:y1, x0:x1]
        left, top = shown[0, 0, :2].tolist()
        assert (shown == image[top : top + y1 - y0, left : left + x1 - x0]).all()
        inside = np.zeros(jittered.image.shape[:2], dtype=bool)
        inside[y0:y1, x0:x1] = True
        mean = image.mean(axis=(0, 1)).astype(np.uint8)
        assert (jittered.image[~inside] == mean).all()
        limits = [window.width, window.height] * 2
        moved = np.array([20, 10, 30, 25]) - [window.left, window.top] * 2
        assert jittered.boxes.tolist() == [moved.clip(0, limits).tolist()]

    def test_extremes(self) -> None:
        one_pixel, _ = apply(JitterCrop(0.49), picture(1, 1))
        assert one_pixel.image.shape == (1, 1, 3)
        with pytest.raises(ValueError, match="ratio.*0.5"):
            JitterCrop(0.5)


class TestRandomDistort:
    def test_draws_within_its_limits(self) -> None:
        np.random.seed(0)
        drawn = [RandomDistort(0.1, 1.5, 2.0).get_transform(picture()) for _ in range(400)]
        for name, low, high in (
            ("hue", -0.1, 0.1),
            ("saturation", 1 / 1.5, 1.5),
            ("exposure", 0.5, 2.0),
        ):
            values = [getattr(t, name) for t in drawn]
            assert low <= min(values) < low + 0.03
            assert high - 0.03 < max(values) <= high
        assert sum(t.exposure < 1 for t in drawn) == pytest.approx(200, abs=40)

    @pytest.mark.parametrize(
        ("turn", "colour"), [(0, (200, 0, 0)), (1 / 3, (0, 200, 0)), (-1 / 3, (0, 0, 200))]
    )
    def test_hues_go_round_the_circle(self, turn: float, colour: tuple[int, ...]) -> None:
        red = np.full((2, 3, 3), (200, 0, 0), dtype=np.uint8)
        assert (DistortTransform(turn, 1.0, 1.0).apply_image(red) == colour).all()
        # in B, G, R the same hues appear, in the other order
        turned = DistortTransform(-turn, 1.0, 1.0).apply_image(red[..., ::-1])
        assert (turned[..., ::-1] == colour).all()

    def test_saturation_and_exposure(self) -> None:
        colour = np.full((1, 1, 3), (100, 50, 50), dtype=np.uint8)  # S is a half, V 100
        assert DistortTransform(0, 2.0, 1.0).apply_image(colour).tolist() == [[[100, 0, 0]]]
        assert DistortTransform(0, 1.0, 2.0).apply_image(colour).tolist() == [[[200, 100, 100]]]
        assert DistortTransform(0, 1.0, 9.0).apply_image(colour)[0, 0, 0] == 255
        boxes = np.array([[1.0, 2, 3, 4]])
        assert (DistortTransform(0.1, 1.5, 1.5).apply_box(boxes) == boxes).all()

    def test_bad_arguments(self) -> None:
        for name, value in (("hue", 0.6), ("saturation", 0.5), ("exposure", 0.0)):
            with pytest.raises(ValueError, match=f"{name}.*{value:g}"):
                RandomDistort(**{name: value})
        with pytest.raises(ValueError, match=r"float32 of shape \(2, 2\)"):
            DistortTransform(0.1, 1.0, 1.0).apply_image(np.zeros((2, 2), dtype=np.float32))


class TestCutOut:
    def test_thirteen_shapes_from_4_to_48_px(self) -> None:
        assert len(set(CUTOUT_SHAPES)) == 13
        assert {(h, w) for w, h in CUTOUT_SHAPES} == set(CUTOUT_SHAPES)
        assert min(CUTOUT_SHAPES) == (4, 4)
        assert max(CUTOUT_SHAPES) == (48, 48)

    @given(seed=st.integers(0, 999))
    def test_holes_have_their_shapes_and_stay_in_the_picture(self, seed: int) -> None:
        image = picture(200, 300)
        cut, transform = apply(CutOut(prob=1), image, [[20, 10, 30, 25]], seed)
        assert 5 <= len(transform.rectangles) <= 10
        hole = np.zeros(image.shape[:2], dtype=bool)
        for x0, y0, x1, y1 in transform.rectangles.tolist():
            assert (x1 - x0, y1 - y0) in CUTOUT_SHAPES
            assert 0 <= x0 < 300
            assert 0 <= y0 < 200
            hole[y0:y1, x0:x1] = True
        assert (cut.image[hole] == 0).all()
        assert (cut.image[~hole] == image[~hole]).all()
        assert cut.boxes.tolist() == [[20, 10, 30, 25]]

    def test_draws_all_numbers_and_shapes_and_half_of_the_pictures(self) -> None:
        np.random.seed(0)
        drawn = [CutOut().get_transform(picture(200, 300)) for _ in range(400)]
        made = [t.rectangles for t in drawn if isinstance(t, FillTransform)]
        assert len(made) == pytest.approx(200, abs=40)
        assert {len(x) for x in made} == set(range(5, 11))
        sides = np.concatenate(made)
        assert {tuple(x) for x in (sides[:, 2:] - sides[:, :2]).tolist()} == set(CUTOUT_SHAPES)

    def test_no_hole_and_bad_arguments(self) -> None:
        none, _ = apply(CutOut([0, 0], prob=1), picture())
        assert (none.image == picture()).all()
        with pytest.raises(ValueError, match="num_holes"):
            CutOut([10, 5])
        for shapes in ([], [(4, 0)], [(4, 4, 4)]):
            with pytest.raises(ValueError, match="shapes must be pairs"):
                CutOut(shapes=shapes)


def test_windows_elsewhere_and_empty_ones() -> None:
    assert (WindowTransform(-99, 0, 5, 6, fill=(1, 2, 3)).apply_image(picture()) == [1, 2, 3]).all()
    grey = WindowTransform(58, 38, 4, 4, fill=7).apply_image(picture()[..., 0])
    assert grey.tolist() == [[58, 59, 7, 7]] * 2 + [[7] * 4] * 2
    with pytest.raises(ValueError, match="0 x 5"):
        WindowTransform(0, 0, 0, 5)
