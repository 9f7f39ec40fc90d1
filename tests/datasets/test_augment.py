from __future__ import annotations

import numpy as np
import pytest
from detectron2.config import instantiate
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform
from hypothesis import given, settings
from hypothesis import strategies as st
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.data import AugInput, DetectionMapper
from vfnet_yolof.data.transforms import OpenCVResizeTransform, WindowTransform


def noise(height: int = 30, width: int = 50) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_what_one_step_cuts_away_does_not_come_back() -> None:
    steps = T.AugmentationList([CropTransform(10, 0, 40, 30), WindowTransform(-8, -2, 40, 30)])
    cut = AugInput(noise(), np.array([[4.0, 5, 20, 15], [0, 0, 9, 9]]))
    steps(cut)
    # after the crop: [0, 5, 10, 15] and nothing; shifted by (8, 2)
    assert cut.boxes[0].tolist() == [8, 7, 18, 17]
    assert cut.boxes[1, 0] == cut.boxes[1, 2]
    assert cut.content.tolist() == [8, 2, 40, 30]


def test_without_boxes() -> None:
    empty = AugInput(noise())
    T.AugmentationList([T.Resize((15, 25)), T.RandomFlip(prob=1)])(empty)
    assert empty.boxes.shape == (0, 4)
    assert empty.content.tolist() == [0, 0, 25, 15]


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Four neighbours of each new pixel's centre, literally."""
    rows, columns = image.shape[:2]
    result = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = min(int(y), rows - 2), min(int(x), columns - 2)
            corner = image[top : top + 2, left : left + 2].astype(float)
            column = corner[0] * (1 - y + top) + corner[1] * (y - top)
            result[i, j] = column[0] * (1 - x + left) + column[1] * (x - left)
    return result


@pytest.mark.parametrize("size", [(13, 21), (45, 70), (30, 50)])
def test_opencv_interpolates_between_four_pixels_and_pil_averages(size: tuple[int, int]) -> None:
    image = noise()
    results = {}
    for name in ("opencv", "pil"):
        resized = AugInput(image, np.array([[10.0, 6, 40, 24]]), interpolation=name)
        T.RandomApply(T.Resize(size), prob=1)(resized)  # nested augmentations follow it as well
        results[name] = resized.image.astype(float)
        sx, sy = size[1] / 50, size[0] / 30
        np.testing.assert_allclose(resized.boxes, [[10 * sx, 6 * sy, 40 * sx, 24 * sy]])
    literal = bilinear(image, *size)
    assert abs(results["opencv"] - literal).max() <= 1
    pil = T.ResizeTransform(30, 50, *size).apply_image(image)
    assert (results["pil"] == pil).all()
    if size == (13, 21):  # shrunk: the antialiased picture of noise is much flatter
        assert results["pil"].std() < 0.8 * results["opencv"].std()


def test_opencv_resizes_grey_and_single_channel_pictures() -> None:
    resize = OpenCVResizeTransform(30, 50, 60, 100)
    assert resize.apply_image(noise()[..., 0]).shape == (60, 100)
    assert resize.apply_image(noise()[..., :1]).shape == (60, 100, 1)
    assert resize.inverse().apply_image(resize.apply_image(noise())).shape == (30, 50, 3)
    labels = (noise()[..., 0] > 128).astype(np.uint8)
    assert set(np.unique(resize.apply_segmentation(labels))) == {0, 1}


def test_the_mapper_resizes_as_it_is_told(records) -> None:
    made = {
        name: DetectionMapper(
            is_train=True, augmentations=[T.ResizeShortestEdge(20, 30)], interpolation=name
        )(records[0])
        for name in ("pil", "opencv")
    }
    assert (made["pil"]["image"] != made["opencv"]["image"]).any()
    boxes = [m["instances"].gt_boxes.tensor.tolist() for m in made.values()]
    assert boxes[0] == boxes[1]
    assert made["pil"]["content_box"].tolist() == [0, 0, 30, 20]


def test_bad_interpolations() -> None:
    with pytest.raises(ValueError, match="'cubic'.*pil, opencv"):
        DetectionMapper(is_train=True, augmentations=[], interpolation="cubic")
    nearest = AugInput(noise(), interpolation="opencv")
    with pytest.raises(ValueError, match="bilinear"):
        T.Resize((10, 10), interp=0)(nearest)


def test_boxes_are_clipped_before_the_first_step():
    """What lies beyond the picture's border does not come in with a shift, or without any step."""
    found = AugInput(noise(), np.array([[-9.0, -9, 1e300, 15]]))
    assert found.boxes.tolist() == [[0, 0, found.image.shape[1], 15]]


def thin(height: int, width: int) -> AugInput:
    return AugInput(np.zeros((height, width, 3), np.uint8), [[0, 0, width, height]])


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    thick=st.integers(1, 4),
    long=st.integers(1, 12_000),
    upright=st.booleans(),
    resize=st.sampled_from(
        [
            T.ResizeShortestEdge(320, 533),
            T.ResizeShortestEdge([400, 1400], 1600, "range"),
            T.ResizeScale(0.1, 2.0, 640, 640),
            T.RandomApply(T.ResizeShortestEdge(20, 30), prob=1),
        ]
    ),
    interpolation=st.sampled_from(["pil", "opencv"]),
)
def test_a_resize_leaves_a_pixel_of_each_side(
    thick: int, long: int, upright: bool, resize: T.Augmentation, interpolation: str
) -> None:
    size = (long, thick) if upright else (thick, long)
    resized = thin(*size)
    resized.interpolation = interpolation
    resize(resized)
    height, width = resized.image.shape[:2]
    assert min(height, width) >= 1
    np.testing.assert_allclose(resized.boxes, [[0, 0, width, height]])
    np.testing.assert_allclose(resized.content, [0, 0, width, height])


@pytest.mark.parametrize(
    "config", ["vfnet/vfnet_small.py", "vfnet/vfnetx_r2_101_800.py", "yolof/yolof_r50_c5_ms_6x.py"]
)
def test_recipes_take_the_thinnest_pictures(config: str) -> None:
    loaders = load_config(config).dataloader
    for split in ("train", "test"):
        mapper = instantiate(loaders[split].mapper)
        for size in ((1, 1067), (2001, 1), (2, 3000), (1, 10_000)):
            picture = thin(*size)
            mapper.augmentations(picture)
            assert min(picture.image.shape[:2]) >= 1
