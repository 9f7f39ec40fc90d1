"""Pictures of every depth and mode arrive as they are seen, or are refused by name."""

from __future__ import annotations

import io
import logging
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from vfnet_yolof.data import DetectionMapper, ImageReadError, image_size, read_image, validate_coco
from vfnet_yolof.utils.image_arrays import to_array
from vfnet_yolof.utils.images import pil_to_array

LEVELS = np.array([[0, 1, 2, 127], [128, 200, 254, 255]], dtype=np.uint8)
SIXTEEN = LEVELS.astype(np.uint16) * 257  # the same levels of 65,535
FLOATS = LEVELS.astype(np.float32) / 255


def tiff(values: np.ndarray, *, white_is_zero: bool = False, bits: int | None = None) -> bytes:
    """An uncompressed grey TIFF, as Pillow itself does not write them; 12 bits are packed."""
    height, width = values.shape
    bits = 8 * values.itemsize if bits is None else bits
    data = values.tobytes()
    if bits == 12:
        numbers = "".join(f"{value:012b}" for value in values.ravel().tolist())
        data = int(numbers, 2).to_bytes(len(numbers) // 8, "big")
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    photometric = 0 if white_is_zero else 1
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data), 339: kind}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    header = b"II*\x00" + struct.pack("<I", 8 + len(data))
    return header + data + struct.pack("<H", len(tags)) + directory + b"\x00" * 4


def png_chunk(name: bytes, content: bytes) -> bytes:
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def saved(image: Image.Image, suffix: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=Image.registered_extensions()[suffix], **options)
    return stream.getvalue()


def grey_png_with_key(key: int) -> bytes:
    """16-bit grey, in which the value ``key`` is transparent."""
    content = saved(Image.fromarray(SIXTEEN), ".png")
    start = content.index(b"IDAT") - 4
    return content[:start] + png_chunk(b"tRNS", struct.pack(">H", key)) + content[start:]


def read(content: bytes, folder: Path, name: str) -> np.ndarray:
    path = folder / name
    path.write_bytes(content)
    return read_image(path)


GREY: dict[str, tuple[str, Callable[[], bytes]]] = {
    "8 bits": ("a.png", lambda: saved(Image.fromarray(LEVELS), ".png")),
    "16-bit PNG": ("a.png", lambda: saved(Image.fromarray(SIXTEEN), ".png")),
    "16-bit TIFF": ("a.tif", lambda: saved(Image.fromarray(SIXTEEN), ".tif")),
    "16-bit TIFF, compressed": (
        "a.tif",
        lambda: saved(Image.fromarray(SIXTEEN), ".tif", compression="tiff_lzw"),
    ),
    "16-bit TIFF, big endian": (
        "a.tif",
        lambda: saved(Image.fromarray(SIXTEEN.astype(">u2")), ".tif"),
    ),
    "16-bit TIFF, white is 0": ("a.tif", lambda: tiff(65535 - SIXTEEN, white_is_zero=True)),
    "16-bit PGM": ("a.pgm", lambda: b"P5 4 2 65535\n" + SIXTEEN.astype(">u2").tobytes()),
    "12-bit TIFF": ("a.tif", lambda: tiff(LEVELS.astype(np.uint16) << 4, bits=12)),
    "float TIFF": ("a.tif", lambda: saved(Image.fromarray(FLOATS), ".tif")),
    "float TIFF, white is 0": ("a.tif", lambda: tiff(1 - FLOATS, white_is_zero=True)),
    "with full opacity": ("a.png", lambda: saved(Image.fromarray(LEVELS).convert("LA"), ".png")),
    "palette": ("a.png", lambda: saved(Image.fromarray(LEVELS).convert("P"), ".png")),
}


@pytest.mark.parametrize("kind", GREY)
def test_grey_levels(kind: str, tmp_path: Path) -> None:
    name, content = GREY[kind]
    array = read(content(), tmp_path, name)
    assert array.dtype == np.uint8
    assert array.tolist() == np.repeat(LEVELS[:, :, None], 3, axis=2).tolist()
    # The predictor has them from the path and from Pillow's image alike, training from the mapper.
    path = tmp_path / name
    with Image.open(path) as image:
        assert (pil_to_array(image) == array).all()
        assert (to_array(image, "BGR") == array).all()
    assert (to_array(path, "BGR") == array).all()
    sample = DetectionMapper(is_train=True, augmentations=[])({"file_name": str(path)})
    assert (sample["image"].permute(1, 2, 0).numpy() == array).all()


def test_dark_data_in_a_large_type_stay_dark(tmp_path: Path) -> None:
    """12 bits of data in 16: a viewer shows them dark, too."""
    array = read(tiff(SIXTEEN >> 4), tmp_path, "dark.tif")
    assert array[..., 0].tolist() == (LEVELS >> 4).tolist()


def test_colours_of_16_bits(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), rgb[..., ::-1])
        assert (read_image(tmp_path / name, "RGB") == rgb >> 8).all()
        assert (read_image(tmp_path / name, "BGR") == rgb[..., ::-1] >> 8).all()


RED = (255, 0, 0)


@pytest.mark.parametrize(
    ("suffix", "make", "tolerance"),
    [
        (".tif", lambda: Image.new("CMYK", (8, 8), (0, 255, 255, 0)), 0),
        (".jpg", lambda: Image.new("CMYK", (8, 8), (0, 255, 255, 0)), 3),
        (".tif", lambda: Image.new("YCbCr", (8, 8), (76, 85, 255)), 2),
        (".jpg", lambda: Image.new("RGB", (8, 8), RED), 3),
        (".webp", lambda: Image.new("RGBA", (8, 8), (*RED, 255)), 4),
        # sRGB's red is L 54.3, a 80.8, b 69.9 (D50); a and b are stored with 128 added
        (".tif", lambda: Image.new("LAB", (8, 8), (138, 128 + 81, 128 + 70)), 6),
    ],
)
def test_red_is_red(
    suffix: str, make: Callable[[], Image.Image], tolerance: int, tmp_path: Path
) -> None:
    image = make()
    array = read(saved(image, suffix), tmp_path, f"red{suffix}").astype(int)
    assert abs(array - RED).max() <= tolerance
    assert abs(pil_to_array(image).astype(int) - RED).max() <= tolerance


def test_one_bit(tmp_path: Path) -> None:
    bits = Image.fromarray(LEVELS).point(lambda level: 255 * (level > 127), "1")
    for suffix in (".png", ".tif", ".bmp"):
        array = read(saved(bits, suffix), tmp_path, f"a{suffix}")
        assert array[..., 2].tolist() == [[0, 0, 0, 0], [255, 255, 255, 255]]


def transparent() -> Image.Image:
    """Three px of blue: opaque, half and not at all there."""
    image = Image.new("RGBA", (3, 1), (0, 0, 255, 255))
    image.putpixel((1, 0), (0, 0, 255, 128))
    image.putpixel((2, 0), (0, 0, 255, 0))
    return image


class TestTransparency:
    """What is not there is white, as the page behind it; never the colour that it hides."""

    ON_WHITE = ([0, 0, 255], [127, 127, 255], [255, 255, 255])

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
    def test_colours(self, suffix: str, tmp_path: Path) -> None:
        options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
        content = saved(transparent(), suffix, **options)
        assert read(content, tmp_path, f"a{suffix}")[0].tolist() == [*self.ON_WHITE]

    def test_grey(self, tmp_path: Path) -> None:
        image = Image.merge("LA", [Image.new("L", (2, 1), 40), Image.new("L", (2, 1), 0)])
        image.putpixel((0, 0), (40, 255))
        assert read(saved(image, ".png"), tmp_path, "a.png")[0, :, 0].tolist() == [40, 255]

    def test_palette(self, tmp_path: Path) -> None:
        image = Image.new("P", (3, 1))
        image.putpalette([0, 0, 255] * 3)
        image.putdata([0, 1, 2])
        content = saved(image, ".png", transparency=bytes([255, 128, 0]))
        assert read(content, tmp_path, "a.png")[0].tolist() == [*self.ON_WHITE]
        content = saved(image, ".gif", transparency=2)
        assert read(content, tmp_path, "a.gif")[0, 2].tolist() == [255, 255, 255]

    def test_one_colour_stands_for_nothing(self, tmp_path: Path) -> None:
        image = Image.new("RGB", (2, 1), (9, 8, 7))
        image.putpixel((1, 0), (0, 0, 255))
        content = saved(image, ".png", transparency=(0, 0, 255))
        assert read(content, tmp_path, "a.png")[0].tolist() == [[9, 8, 7], [255, 255, 255]]
        grey = read(grey_png_with_key(127 * 257), tmp_path, "b.png")[..., 0]
        assert grey.tolist() == [[0, 1, 2, 255], [128, 200, 254, 255]]

    def test_a_picture_of_nothing_is_said(self, tmp_path: Path, caplog) -> None:
        content = saved(Image.new("RGBA", (3, 2), (0, 0, 255, 0)), ".png")
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert (read(content, tmp_path, "nothing.png") == 255).all()
        assert len(caplog.records) == 1
        assert "nothing.png is transparent all over" in caplog.text

    def test_a_bmp_whose_alpha_nobody_has_filled_in_is_opaque(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bmp"
        cv2.imwrite(str(path), np.full((2, 2, 4), (0, 0, 255, 0), np.uint8))
        assert read_image(path)[0, 0].tolist() == [255, 0, 0]

    def test_pil_images(self) -> None:
        for mode in ("RGBA", "RGBa"):
            array = pil_to_array(transparent().convert(mode))
            assert array[0, ::2].tolist() == [[0, 0, 255], [255, 255, 255]]
        assert to_array(transparent(), "BGR")[0, 0].tolist() == [255, 0, 0]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "unsigned 32 bits": (lambda: tiff(SIXTEEN.astype(np.uint32)), "32-bit or signed integers"),
    "signed 32 bits": (lambda: tiff(SIXTEEN.astype(np.int32)), "32-bit or signed integers"),
    "signed 16 bits": (lambda: tiff(LEVELS.astype(np.int16)), "32-bit or signed integers"),
    "float 255": (lambda: tiff(FLOATS * 255), "float values from 0 to 255.*only 0 .*to 1"),
    "negative": (lambda: tiff(FLOATS - 1), "float values from -1 to 0"),
    "NaN": (lambda: tiff(FLOATS * math.nan), "float values from nan to nan"),
    "double precision": (lambda: tiff(FLOATS.astype(np.float64)), "pixel type that Pillow"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_values_without_an_agreed_meaning_are_refused(
    kind: str, tmp_path: Path, write_coco: Callable[..., tuple[str, str]]
) -> None:
    content, message = REFUSED[kind]
    json_file, root = write_coco(
        images=[{"id": 1, "file_name": "odd.tif", "width": 4, "height": 2}],
        annotations=[{"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 2, 2]}],
    )
    path = Path(root, "odd.tif")
    path.write_bytes(content())
    with pytest.raises(ImageReadError, match=f"odd.tif: .*{message}") as caught:
        read_image(path)
    assert "annotations" not in str(caught.value)  # who predicts has none
    assert caught.value.reason in str(caught.value)
    record = {"file_name": str(path), "image_id": 7}
    with pytest.raises(ImageReadError, match=f"{message}.*image id 7.*remove its entry"):
        DetectionMapper(is_train=False, augmentations=[])(record)
    report = validate_coco(json_file, root, images="decode")
    assert [fault.what for fault in report.errors] == ["unreadable image"]
    assert "odd.tif" in str(report.errors[0])
    if kind.endswith("bits"):  # what the header tells is known without decoding
        assert not validate_coco(json_file, root, images="header").ok


def test_arrays_and_pil_images_of_unknown_range_are_refused() -> None:
    with pytest.raises(ImageReadError, match="PIL image: has 32-bit or signed integers"):
        to_array(Image.fromarray(SIXTEEN.astype(np.int32)), "RGB")
    with pytest.raises(ImageReadError, match="PIL image: has float values"):
        to_array(Image.fromarray(FLOATS * 100), "RGB")
    with pytest.raises(ValueError, match="must be uint8.*got uint16"):
        to_array(SIXTEEN, "RGB")
    with pytest.raises(ValueError, match="'XYZ'; known are RGB, BGR"):
        pil_to_array(Image.fromarray(LEVELS), "XYZ")


def turned(path: Path, orientation: int) -> None:
    image = Image.fromarray(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6))
    if path.suffix == ".tif":
        image.save(path, tiffinfo={0x0112: orientation})
        return
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100}}.get(path.suffix, {})
    image.convert("RGB").save(path, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation(suffix: str, orientation: int, tmp_path: Path) -> None:
    pixels = np.arange(0, 240, 10).reshape(4, 6)
    expected = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].T,
        8: np.rot90(pixels),
    }[orientation]
    path = tmp_path / f"a{suffix}"
    turned(path, orientation)
    array = read_image(path)[..., 1].astype(int)
    assert array.shape == expected.shape
    assert abs(array - expected).max() <= (3 if suffix == ".jpg" else 1)
    assert image_size(path) == expected.shape[::-1]
    with Image.open(path) as image:
        assert (pil_to_array(image)[..., 1] == array).all()


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    turned(path, 6)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    length = 12 + struct.unpack(">I", content[start : start + 4])[0]
    chunk, rest = content[start : start + length], content[:start] + content[start + length :]
    end = rest.index(b"IEND") - 4
    path.write_bytes(rest[:end] + chunk + rest[end:])
    assert read_image(path).shape == (6, 4, 3)
    assert image_size(path) == (4, 6)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the damage
def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (6, 4)).save(path, exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")
    assert read_image(path).shape == (4, 6, 3)
    assert image_size(path) == (6, 4)


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".webp", ".png"])
def test_of_several_frames_the_first_is_read_and_said_once(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (Image.new("RGB", (8, 8), (level,) * 3) for level in (200, 20))
    path = tmp_path / f"moving{suffix}"
    path.write_bytes(saved(first, suffix, save_all=True, append_images=[second]))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert abs(read_image(path).astype(int) - 200).max() <= 2
    said = [r.getMessage() for r in caplog.records if "the first one is used" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(str(path))
    assert image_size(path) == (8, 8)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(np.zeros((64, 64, 3), np.uint8)), ".png")
    for name, content, reason in (
        ("cut.png", whole[: len(whole) // 2], "truncated"),
        ("text.png", b"not an image", "not an image, or of a format"),
        ("empty.png", b"", "not an image"),
    ):
        with pytest.raises(ImageReadError, match=f"{name}: .*{reason}"):
            read(content, tmp_path, name)
    (tmp_path / "folder.png").mkdir()
    for function in (read_image, image_size):
        with pytest.raises(ImageReadError, match=r"folder\.png: a folder"):
            function(tmp_path / "folder.png")
        with pytest.raises(FileNotFoundError, match=r"not found: .*absent\.png"):
            function(tmp_path / "absent.png")
    record = {"file_name": str(tmp_path / "absent.png"), "image_id": "x7"}
    with pytest.raises(FileNotFoundError, match="image id x7.*check the image folder"):
        DetectionMapper(is_train=False, augmentations=[])(record)
