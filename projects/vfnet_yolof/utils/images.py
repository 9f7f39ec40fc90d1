"""Reading images: one way for training, evaluation, prediction and checks of data sets.

An image arrives with the values that a person sees in a viewer, or is refused by name. What that
means for each kind of image is in docs/data.md, "What is read of an image".
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError, features
from PIL.TiffImagePlugin import TiffImageFile

logger = logging.getLogger("detectron2.vfnet_yolof.data.images")

_reads_heic = False
with contextlib.suppress(ImportError):  # not a dependency; with it Pillow reads HEIC
    import pillow_heif

    pillow_heif.register_heif_opener()
    _reads_heic = True

IMAGE_FORMATS = ("RGB", "BGR")


class ImageKind(NamedTuple):
    """A file format of images.

    Attributes:
        name: what people call it. suffixes: of its files, in small letters.
        feature: the part of Pillow that reads it, where it can be missing.
        remedy: what makes it readable where it is not.
    """

    name: str
    suffixes: tuple[str, ...]
    feature: str = ""
    remedy: str = ""

    @property
    def readable(self) -> bool:
        """Whether the Pillow of this environment reads it."""
        if self.feature == "heif":
            return _reads_heic
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a release of Pillow that does not know the feature
            return not self.feature or bool(features.check(self.feature))


_NEWER = "pip install --upgrade pillow"
IMAGE_KINDS = (
    ImageKind("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), "jpg", _NEWER),
    ImageKind("PNG", (".png", ".apng"), "zlib", _NEWER),
    ImageKind("BMP", (".bmp", ".dib")),
    ImageKind("GIF", (".gif",)),
    ImageKind("TIFF", (".tif", ".tiff")),
    ImageKind("PNM", (".pnm", ".pbm", ".pgm", ".ppm", ".pfm")),
    ImageKind("WebP", (".webp",), "webp", _NEWER),
    ImageKind("JPEG 2000", (".jp2", ".j2k", ".j2c", ".jpf", ".jpx"), "jpg_2000", _NEWER),
    ImageKind("AVIF", (".avif",), "avif", f"{_NEWER} (11.3 or newer)"),
    ImageKind("HEIC", (".heic", ".heif", ".hif"), "heif", "pip install pillow-heif"),
)

_ORIENTATION = 0x0112  # of EXIF and of TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC = 256, 257, 258, 262
_WHITE_IS_ZERO = 0

# Pillow's modes. Others than these (32-bit or signed integers, and what later releases may add)
# have no white that all programs agree on.
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_INTEGERS = ("I;16", "I;16L", "I;16B", "I;16N")
_INTEGER_FORMATS = ("PNG", "PPM")  # of which older Pillows read 16 bits into 32
# Files with further frames or pages; a camera's MPO is a JPEG with previews, which nobody misses.
_SERIES = ("AVIF", "GIF", "HEIF", "PNG", "TIFF", "WEBP")


class ImageReadError(RuntimeError):
    """An image that cannot be read as it is seen; the message names it.

    Attributes:
        reason: the message without the name.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason


class _UnusableError(ValueError):
    """What is wrong with an image, for people."""


def check_image_format(image_format: str) -> str:
    """``image_format`` itself; ValueError unless it is "RGB" or "BGR"."""
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"image_format={image_format!r}; known are {', '.join(IMAGE_FORMATS)}.")
    return image_format


def read_image(path: str | os.PathLike[str], image_format: str = "RGB") -> np.ndarray:
    """(H, W, 3) uint8 in ``image_format``, turned as its EXIF orientation says.

    Of a file with several frames or pages the first is read, and a warning says so once.

    Args:
        path: a file, or an address that Detectron2's ``PathManager`` opens.
        image_format: "RGB" or "BGR".

    Raises:
        ValueError: another ``image_format``.
        FileNotFoundError: there is no such file.
        ImageReadError: the file is no image, a damaged one, or one whose values have no agreed
            meaning.
    """
    check_image_format(image_format)
    path = os.fspath(path)
    with _named(path), _open(path) as file, Image.open(file) as image:
        if _has_more_frames(image):
            _say_once(path, "has several frames or pages; the first one is used")
        return _pixels(image, image_format, path)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) px of what :func:`read_image` returns, from the file's header alone.

    Raises:
        FileNotFoundError, ImageReadError: as far as the header tells.
    """
    path = os.fspath(path)
    with _named(path), _open(path) as file, Image.open(file) as image:
        _check_mode(image)
        if isinstance(image, TiffImageFile):
            # Some releases of Pillow have swapped the sides here already, others have not.
            width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
            orientation = image.tag_v2.get(_ORIENTATION, 1)
        else:
            width, height = image.size
            orientation = _orientation_in_header(image, file)
        return (height, width) if orientation in _SWAPS_SIDES else (width, height)


def pil_to_array(image: Image.Image, image_format: str = "RGB") -> np.ndarray:
    """As :func:`read_image`, for an image that Pillow has opened or made, at its present frame.

    Raises:
        ValueError, ImageReadError: as there.
    """
    check_image_format(image_format)
    file = getattr(image, "filename", "")
    name = f"PIL image of {os.fspath(file)}" if file else "PIL image"
    with _named(name):
        return _pixels(image, image_format, name)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors inside of the block get the image's name, whatever type Pillow gives them."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"Image file not found: {name}.") from error
    except Exception as error:
        reason = _reason(error, name)
        raise ImageReadError(f"Cannot read image {name}: {reason}.", reason) from error


def _reason(error: Exception, name: str) -> str:
    if isinstance(error, _UnusableError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        suffix = os.path.splitext(name)[1].lower()
        for kind in IMAGE_KINDS:
            if suffix in kind.suffixes and not kind.readable:
                return f"{kind.name} is not read here; {kind.remedy}, or save it as PNG or JPEG"
        return (
            "not an image, or of a format or pixel type that Pillow does not read; if it is one, "
            "save it as PNG or JPEG with 8 bits a channel"
        )
    text = f"{type(error).__name__}: {error}".rstrip(". ")
    if isinstance(error, Image.DecompressionBombError) or getattr(error, "errno", None):
        return text  # what the system says of the file, or Pillow of its size
    return f"damaged, get the file again ({text})"


def _open(path: str) -> BinaryIO:
    if os.path.exists(path) and not os.path.isfile(path):
        raise _UnusableError("a folder or a device, not a file")
    if "://" not in path:
        return open(path, "rb")
    # Only addresses need Detectron2, which is not there where exported detectors run.
    from detectron2.utils.file_io import PathManager

    return PathManager.open(path, "rb")


def _check_mode(image: Image.Image) -> None:
    known = (*_PLAIN, *_TRANSPARENT, *_INTEGERS, "F", "LAB")
    if image.mode in known or (image.mode == "I" and image.format in _INTEGER_FORMATS):
        return
    what = "32-bit or signed integers" if image.mode == "I" else f"pixels of mode {image.mode}"
    raise _UnusableError(
        f"has {what}, and nothing says which value is white; save it with 8 or 16 unsigned bits "
        "a channel"
    )


def _pixels(image: Image.Image, image_format: str, name: str) -> np.ndarray:
    _check_mode(image)
    _load(image)  # before asking for the orientation, which may stand behind the pixels
    turn = _TURNS.get(_orientation(image))
    if image.mode in _INTEGERS or image.mode == "I":
        array = _grey(_integer_levels(image))
    elif image.mode == "F":
        array = _grey(_float_levels(image))
    else:
        array = np.asarray(_rgb(image, name))
    if turn is not None:
        array = np.asarray(Image.fromarray(array).transpose(turn))
    return array[:, :, ::-1] if image_format == "BGR" else array


def _load(image: Image.Image) -> None:
    """Decode an image that Pillow has only opened; a turned TIFF not from Pillow's memory map.

    Pillow maps files that it opens by name, and takes the turned image's sides for the file's.
    """
    if not isinstance(image, TiffImageFile) or not image.filename:
        image.load()
        return
    file, image.filename = image.filename, ""
    try:
        image.load()
    finally:
        image.filename = file


def _grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[:, :, None], 3, axis=2)


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """An 8-bit image of any colours; what is transparent lies on white."""
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    palette = getattr(image, "palette", None)
    if (
        image.mode in _TRANSPARENT
        or "transparency" in image.info
        or (image.mode == "P" and palette is not None and palette.mode == "RGBA")
    ):
        from_bmp = image.format == "BMP"
        image = image.convert("RGBA")
        if image.getchannel("A").getbbox() is None:
            if from_bmp:  # many programs leave that byte at 0, and viewers show the image
                return image.convert("RGB")
            _say_once(name, "is transparent all over, so it is read as white")
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # as it is where it is not done in place
    return converted


def _integer_levels(image: Image.Image) -> np.ndarray:
    """(H, W) uint8 of more than 8 bits: the whole range of the type, its highest byte."""
    bits = 16
    tags = _tiff_tags(image)
    if _TIFF_BITS in tags:
        bits = int(np.ravel(tags[_TIFF_BITS])[0])
    values = np.asarray(image)
    levels = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:  # which Pillow heeds for 8 bits only
        levels = 255 - levels
    if isinstance(key := image.info.get("transparency"), int):
        levels[values == key] = 255
    return levels


def _float_levels(image: Image.Image) -> np.ndarray:
    """(H, W) uint8 of numbers from 0 (black) to 1 (white)."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also where there is a NaN
        raise _UnusableError(
            f"has float values from {low:g} to {high:g}, but only 0 (black) to 1 (white) are "
            "understood; scale them, or save it with 8 or 16 unsigned bits a channel"
        )
    levels = np.rint(values * 255).astype(np.uint8)
    return 255 - levels if _tiff_tags(image).get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO else levels


def _tiff_tags(image: Image.Image) -> dict[int, Any]:
    return dict(image.tag_v2) if isinstance(image, TiffImageFile) else {}


def _orientation(image: Image.Image) -> int:
    """EXIF's number for a loaded image, 1 where it says nothing."""
    if isinstance(image, TiffImageFile):  # Pillow has turned the image while loading it
        return 1
    return _number(image.getexif)


def _orientation_in_header(image: Image.Image, file: BinaryIO) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        # Asking Pillow for it would decode the image; it may stand behind the pixels.
        if data := _png_chunk(file, b"eXIf"):
            return _number(lambda: _parsed_exif(data))
        return _number(lambda: Image.Image.getexif(image))
    return _number(image.getexif)


def _number(get_exif: Callable[[], Image.Exif]) -> int:
    try:
        return int(get_exif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises all kinds of errors for damaged EXIF data; viewers do not
        return 1


def _parsed_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(b"Exif\x00\x00" + data)
    return exif


def _png_chunk(file: BinaryIO, name: bytes) -> bytes:
    """The content of the first chunk of that name, or b""."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] == name:
            return file.read(length)
        file.seek(length + 4, os.SEEK_CUR)
    return b""


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return image.format in _SERIES and bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame, which nobody asked for
        return False


@lru_cache(maxsize=10_000)  # so that a file is named once, not in every epoch
def _say_once(name: str, what: str) -> None:
    logger.warning("%s %s", name, what)
