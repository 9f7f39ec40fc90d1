"""GFL with the boxes of its authors' first release, for the weights of that release."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from ..boxes import clip_boxes
from ..points import PixelIndexPoints
from .gfl import GFL
from .outputs import Targets


class SizedImages(ImageList):
    """Images that know how large a pixel of the output is.

    Attributes:
        pixel_sizes: (N, 2) width and height of an output pixel in pixels of the network's input.
    """

    pixel_sizes: Tensor


class GFocal(GFL):
    """GFL whose boxes end at the last pixel inside, as in MMDetection 1.x.

    There, coordinates count pixels: a box from x1 to x2 is x2 - x1 + 1 pixels wide, in the image
    as it is given, not as it is resized. The network predicts the distances to both pixels; the
    missing one is added before duplicates are removed, so that overlaps are those of whole boxes.
    In training it is taken off the ground truth, and losses compare what is left.

    Args:
        **kwargs: see :class:`GFL`; ``points`` should be :class:`PixelIndexPoints`.

    Raises:
        ValueError: other points.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(self.points, PixelIndexPoints):
            raise ValueError(f"GFocal needs PixelIndexPoints, got {type(self.points).__name__}")

    @property
    def box_geometry(self) -> str:
        """See :class:`GFL`."""
        return "pixel indices"

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> SizedImages:
        """As :class:`GFL`, with the size of an output pixel of each image."""
        images = super().preprocess_image(batched_inputs)
        sized = SizedImages(images.tensor, images.image_sizes)
        sizes = [
            (width / inputs.get("width", width), height / inputs.get("height", height))
            for inputs, (height, width) in zip(batched_inputs, images.image_sizes, strict=True)
        ]
        sized.pixel_sizes = torch.tensor(sizes, device=images.tensor.device)
        return sized

    @torch.no_grad()
    def assign(
        self,
        images: SizedImages,
        sizes: Sequence[tuple[int, int]],
        gt_instances: Sequence[Instances],
    ) -> Targets:
        """Targets whose boxes end at the last pixel inside."""
        closed = []
        for instances, pixel in zip(gt_instances, images.pixel_sizes, strict=True):
            boxes = instances.gt_boxes.tensor
            ends = torch.maximum(boxes[:, 2:] - pixel, boxes[:, :2])
            closed.append(
                Instances(
                    instances.image_size,
                    gt_boxes=Boxes(torch.cat([boxes[:, :2], ends], dim=1)),
                    gt_classes=instances.gt_classes,
                )
            )
        return super().assign(images, sizes, closed)

    def in_image(self, boxes: Tensor, images: SizedImages, image: int) -> Tensor:
        """Boxes that end behind their last pixel."""
        height, width = images.image_sizes[image]
        boxes = clip_boxes(boxes, (height - 1, width - 1))
        return torch.cat([boxes[:, :2], boxes[:, 2:] + images.pixel_sizes[image]], dim=1)
