"""Every kind of image file that Pillow reads here is read, found in folders and drawn."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from vfnet_yolof.data import DetectionMapper, ImageReadError, image_size, read_image
from vfnet_yolof.inference.inputs import collect_inputs
from vfnet_yolof.utils import images
from vfnet_yolof.utils.images import IMAGE_KINDS

READABLE = [kind for kind in IMAGE_KINDS if kind.readable]
NAMES = [kind.name for kind in READABLE]
needs_heic = pytest.mark.skipif("HEIC" not in NAMES, reason="pillow-heif is not installed")
needs_avif = pytest.mark.skipif("AVIF" not in NAMES, reason="Pillow is without AVIF")


def quarters() -> np.ndarray:
    """(40, 64, 3): red, white above grey, blue."""
    array = np.full((40, 64, 3), 255, np.uint8)
    array[:20, :32], array[20:, :32], array[20:, 32:] = (255, 0, 0), 128, (0, 0, 255)
    return array


def write(path: Path, orientation: int = 1) -> Path:
    image = Image.fromarray(quarters())
    if path.suffix in (".pbm", ".pfm", ".pgm"):
        image = Image.fromarray(quarters()[..., 0])
        mode = {".pbm": "1", ".pfm": "F"}.get(path.suffix, "L")
        image = image.convert(mode)
        if mode == "F":
            image = image.point(lambda level: level * (1 / 255) + 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif.tobytes()} if orientation > 1 else {}
    format_of = {".jpe": "JPEG", ".hif": "HEIF", ".pfm": "PPM", ".pnm": "PPM"}
    image.save(path, format=format_of.get(path.suffix), **options)
    return path


@pytest.mark.parametrize("suffix", [s for kind in READABLE for s in kind.suffixes])
def test_each_is_read_in_training_and_prediction(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}")
    array = read_image(path)
    expected = quarters()
    if suffix in (".pbm", ".pfm", ".pgm"):
        expected = np.repeat(expected[..., :1], 3, axis=2)
    inside = [(y, x) for y in (4, 36) for x in (4, 60)]
    if suffix == ".pbm":  # a grey of 128 is dithered
        inside.remove((36, 4))
    for y, x in inside:
        assert abs(array[y, x].astype(int) - expected[y, x]).max() <= 8, (y, x)
    assert image_size(path) == (64, 40)
    sample = DetectionMapper(is_train=True, augmentations=[])({"file_name": str(path)})
    assert (sample["image"].permute(1, 2, 0).numpy() == array).all()
    (source,) = collect_inputs([tmp_path])
    assert source.path == path


@pytest.mark.parametrize(
    "suffix", [pytest.param(".avif", marks=needs_avif), pytest.param(".heic", marks=needs_heic)]
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_cameras_newer_files_are_turned(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", orientation)
    write(tmp_path / "a.png", orientation)
    array, expected = read_image(path).astype(int), read_image(tmp_path / "a.png")
    assert array.shape == expected.shape
    assert image_size(path) == array.shape[1::-1]
    for y in (4, -4):
        for x in (4, -4):
            assert abs(array[y, x] - expected[y, x]).max() <= 8


def test_16_bits_of_jpeg_2000(tmp_path: Path) -> None:
    levels = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "a.jp2")
    assert (read_image(tmp_path / "a.jp2") == levels[..., None]).all()


@needs_avif
def test_of_an_animation_the_first_frame_is_read_and_said(tmp_path: Path, caplog) -> None:
    frames = [Image.new("RGB", (32, 32), (level,) * 3) for level in (200, 20)]
    path = tmp_path / "moving.avif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        assert abs(read_image(path).astype(int) - 200).max() <= 4
    assert "moving.avif has several frames or pages; the first one is used" in caplog.text


class TestWhatIsNotRead:
    """It is found in folders all the same, and its name and the remedy are said."""

    @pytest.fixture
    def without_avif(self, monkeypatch: pytest.MonkeyPatch) -> None:
        check = features.check
        monkeypatch.setattr(features, "check", lambda name: name != "avif" and check(name))
        monkeypatch.setitem(Image.OPEN, "AVIF", (Image.Image, lambda prefix: False))

    @needs_avif
    def test_it_is_named(self, without_avif: None, tmp_path: Path) -> None:
        write(tmp_path / "a.avif")
        (source,) = collect_inputs([tmp_path])
        for function in (read_image, image_size):
            with pytest.raises(ImageReadError, match=r"a\.avif: AVIF is not read here; pip"):
                function(source.path)

    def test_heic_needs_a_package(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(images, "_reads_heic", False)
        monkeypatch.setitem(Image.OPEN, "HEIF", (Image.Image, lambda prefix: False))
        (tmp_path / "IMG_1.HEIC").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
        with pytest.raises(ImageReadError, match="HEIC is not read here; pip install pillow-heif"):
            read_image(collect_inputs([tmp_path])[0].path)

    def test_a_readable_kind_is_not_blamed(self, tmp_path: Path) -> None:
        (tmp_path / "a.gif").write_bytes(b"no image")
        with pytest.raises(ImageReadError, match=r"a\.gif: not an image"):
            read_image(tmp_path / "a.gif")


def test_drawn_as_png_where_colours_would_suffer(tmp_path: Path) -> None:
    names = ["a.GIF", "b.heic", "c.jp2", "d.JPG", "e.webp", "f.avif", "g.pgm", "g.gif", "h.tif"]
    for name in names:
        (tmp_path / name).touch()
    outputs = {s.path.name: str(s.output) for s in collect_inputs([tmp_path])}
    assert outputs == {
        "a.GIF": "a.png",
        "b.heic": "b.png",
        "c.jp2": "c.png",
        "d.JPG": "d.JPG",
        "e.webp": "e.webp",
        "f.avif": "f.png",
        "g.gif": "g.png",
        "g.pgm": "g_2.png",
        "h.tif": "h.tif",
    }
