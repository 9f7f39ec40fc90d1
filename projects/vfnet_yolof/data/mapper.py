"""From a data set record to the input of a detector: boxes only, channel order by configuration."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances

from ..utils.images import ImageReadError, check_image_format, image_size, read_image
from .annotations import MIN_BOX_SIDE
from .transforms import AugInput, check_interpolation

logger = logging.getLogger(f"detectron2.{__name__}")


class DetectionMapper:
    """Reads a record's image, applies the augmentations and, in training, makes its `Instances`.

    Unlike Detectron2's ``DatasetMapper`` it knows boxes only, transforms them in one call, and an
    image that cannot be read stops the run with its name. It never returns None.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str = "RGB",
        interpolation: str = "pil",
        min_box_side: float = MIN_BOX_SIDE,
    ) -> None:
        """Check and keep the options.

        Args:
            is_train: keep the annotations, as ``instances``.
            augmentations: applied in order to image and boxes, see :class:`AugInput`.
            image_format: "RGB" or "BGR", the channel order of ``image``.
            interpolation: "pil" or "opencv", how all resizes among the augmentations work.
            min_box_side: boxes with a side of at most this many px after the augmentations are
                dropped.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = check_image_format(image_format)
        self.interpolation = check_interpolation(interpolation)
        self.min_box_side = min_box_side
        mode = "training" if is_train else "inference"
        logger.info("Augmentations in %s: %s", mode, self.augmentations)

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one record.

        Args:
            record: a Detectron2 data set dict; it is not changed.

        Returns:
            The record without its annotations, plus ``image``, (3, H, W) uint8. In training also
            ``instances`` with ``gt_boxes`` (M, 4) xyxy px and ``gt_classes`` (M,) int64 in the
            frame of ``image``, crowd regions left out, and ``content_box``, (4,) float32 xyxy px,
            the part of ``image`` that is no filled border. ``height`` and ``width`` stay the
            file's.

        Raises:
            FileNotFoundError, ImageReadError: see :func:`.images.read_image`.
            detectron2.data.detection_utils.SizeMismatchError: the file is of another size than the
                annotations say.
        """
        record = copy.copy(record)
        annotations = record.pop("annotations", None)
        image = _read(record, self.image_format)
        detection_utils.check_image_size(record, image)  # also fills in a missing height and width

        boxes, classes = _boxes_and_classes(annotations or [] if self.is_train else [])
        aug_input = AugInput(image, boxes, interpolation=self.interpolation)
        self.augmentations(aug_input)
        image = aug_input.image
        record["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if self.is_train:
            record["content_box"] = torch.as_tensor(aug_input.content, dtype=torch.float32)
            record["instances"] = make_instances(
                image.shape[:2], aug_input.boxes, classes, self.min_box_side
            )
        return record

    def check_header(self, record: dict[str, Any]) -> None:
        """Read only the header of a record's image, which tells most kinds of damage.

        Raises:
            Exception: of Pillow, where there is no such image or its header is damaged.
            ValueError: it is of another size than the record says.
        """
        size = image_size(record["file_name"])
        expected = (record.get("width"), record.get("height"))
        if None not in expected and size != expected:
            raise ValueError(f"is {size[0]}x{size[1]}, not {expected[0]}x{expected[1]}")


def _read(record: dict[str, Any], image_format: str) -> np.ndarray:
    """The image of a record; errors say which entry of the annotations it belongs to."""
    try:
        return read_image(record["file_name"], image_format)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} The annotations list it ({_entry(record)}): check the image folder of the "
            "data set."
        ) from error
    except ImageReadError as error:
        raise ImageReadError(
            f"{error} The annotations list it ({_entry(record)}): replace the file or remove its "
            "entry; tools/validate_dataset.py --decode lists all unreadable images.",
            error.reason,
        ) from error


def _entry(record: dict[str, Any]) -> str:
    return f"image id {record['image_id']}" if "image_id" in record else "without an image id"


def make_instances(
    size: tuple[int, int],
    boxes: np.ndarray,
    classes: np.ndarray,
    min_box_side: float,
) -> Instances:
    """``Instances`` of an image without the boxes that have too short a side.

    Args:
        size: (H, W) px of the image.
        boxes: (M, 4) xyxy px.
        classes: (M,) int64.
        min_box_side: px; both sides must be longer.
    """
    keep = (boxes[:, 2:] - boxes[:, :2] > min_box_side).all(axis=1)
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.as_tensor(boxes[keep], dtype=torch.float32))
    instances.gt_classes = torch.as_tensor(classes[keep])
    return instances


def _boxes_and_classes(annotations: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(M, 4) float64 xyxy px and (M,) int64, of all but crowd regions."""
    kept = [a for a in annotations if not a.get("iscrowd", 0)]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in kept]
    return (
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array([a["category_id"] for a in kept], dtype=np.int64),
    )
