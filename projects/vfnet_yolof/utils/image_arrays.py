"""An image as users hand it over: an array, a file or one of Pillow's, made an array."""

from __future__ import annotations

import os
from typing import TypeGuard

import numpy as np
from PIL import Image

from .images import pil_to_array, read_image

ImageLike = np.ndarray | Image.Image | str | os.PathLike[str]


def to_array(image: ImageLike, output_format: str, input_format: str = "BGR") -> np.ndarray:
    """``image`` as an (H, W, 3) uint8 array in the channel order ``output_format``.

    ``input_format`` is the order of arrays; files and PIL images know theirs, and are read as
    :func:`vfnet_yolof.utils.images.read_image` has it.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(os.fspath(image), output_format)
    if isinstance(image, Image.Image):
        return pil_to_array(image, output_format)
    if not isinstance(image, np.ndarray):
        raise no_image(image)
    array = _checked_array(image)
    return array if input_format == output_format else array[:, :, ::-1]


def is_one_image(images: object) -> TypeGuard[ImageLike]:
    """Whether that is an image, not several."""
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, Image.Image | str | os.PathLike)


def no_image(given: object) -> TypeError:
    """The error for what is no image."""
    return TypeError(
        f"an image must be an array, a path or a PIL image, not {type(given).__name__}; several of "
        "them go in a list"
    )


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(
            "an image array must be uint8, 0 black and 255 white, of shape (H, W, 3) or (H, W); "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array
