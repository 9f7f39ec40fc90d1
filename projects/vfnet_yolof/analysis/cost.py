"""Parameters and multiply-adds of a detector, told apart by its parts.

What is counted: the multiply-adds of convolutions and matrix products, one for each pair of
factors (half of what "FLOPs" may mean elsewhere). Deformable convolutions count as the regular ones
of their shape, and the convolutions that predict their offsets count too. Not counted:
normalisation, activations, sampling, resizing, biases, decoding and NMS. Parameters are what
``parameters()`` returns; the affine part of a frozen batch norm, which Detectron2 keeps in buffers,
is none of them.

Nothing is computed: tensors have shapes and no data, so that the largest model takes a second.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from detectron2.evaluation.evaluator import inference_context
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ..layers.deform_conv import deform_conv_implementation
from ..modeling.heads import AnchorPredictions, PointPredictions

FLOPS_PER_MULTIPLY_ADD = 2


class PartCost(NamedTuple):
    """Numbers, not thousands or millions of them."""

    parameters: int
    multiply_adds: int


class Cost(NamedTuple):
    """Cost of one image by part.

    Attributes:
        backbone: the network under the innermost ``bottom_up``, or all of ``model.backbone``.
        neck: the rest of ``model.backbone``: feature pyramid or encoder.
        head: ``model.head``, on all feature levels.
        anchors: of the image on each level, finest first; of a detector with one box for each
            location, its locations. Empty if the head's predictions do not tell.
    """

    backbone: PartCost
    neck: PartCost
    head: PartCost
    anchors: tuple[int, ...] = ()

    @property
    def parts(self) -> dict[str, PartCost]:
        """By name, in the order in which an image passes them."""
        return {"backbone": self.backbone, "neck": self.neck, "head": self.head}

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts.values())

    @property
    def multiply_adds(self) -> int:
        return sum(part.multiply_adds for part in self.parts.values())

    def as_dict(self) -> dict[str, Any]:
        """``{"parameters": {"backbone": ..., "total": ...}, "multiply_adds": {...}, "anchors":
        {"levels": [...], "total": ...}}``.
        """
        costs = {
            name: {
                **{part: getattr(cost, name) for part, cost in self.parts.items()},
                "total": getattr(self, name),
            }
            for name in PartCost._fields
        }
        return {**costs, "anchors": {"levels": [*self.anchors], "total": sum(self.anchors)}}


def build_without_memory(build: Callable[[], nn.Module]) -> nn.Module:
    """The model that ``build()`` makes, with tensors that have no data: for :func:`count`."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        return build()


def count(model: nn.Module, size: tuple[int, int]) -> Cost:
    """Parameters and multiply-adds of a detector for one image.

    Args:
        model: a detector with ``backbone``, ``head`` and ``head_in_features``, as Detectron2's
            ``DenseDetector``; on any device, or made by :func:`build_without_memory`. It is not
            changed.
        size: (height, width) of the image in pixels. It is padded as the model pads it.

    Raises:
        ValueError: the size is not positive.
        TypeError: the model is no such detector.
    """
    if min(size) < 1:
        raise ValueError(f"size must be positive (height, width), got {tuple(size)}")
    if not isinstance(model, DenseDetector):
        raise TypeError(
            f"only detectors with backbone and head can be counted, not {type(model).__name__}"
        )
    body = innermost(model.backbone)
    counter = FlopCounterMode(display=False, custom_mapping=_deform_conv_formula())
    after_body: list[int] = []
    hook = body.register_forward_hook(lambda *_: after_body.append(counter.get_total_flops()))
    try:
        with without_data(model), counter:
            features = model.backbone(empty_image(model, size))
            after_neck = counter.get_total_flops()
            predictions = model.head([features[name] for name in model.head_in_features])
    finally:
        hook.remove()
    flops = [0, after_body[0], after_neck, counter.get_total_flops()]
    total = _num_parameters(model.backbone)
    own = _num_parameters(body)
    parameters = (own, total - own, _num_parameters(model.head))
    parts = [
        PartCost(number, (last - first) // FLOPS_PER_MULTIPLY_ADD)
        for number, first, last in zip(parameters, flops[:-1], flops[1:], strict=True)
    ]
    known = isinstance(predictions, AnchorPredictions | PointPredictions)
    backbone, neck, in_head = parts
    return Cost(backbone, neck, in_head, tuple(predictions.level_sizes) if known else ())


class MeanCost(NamedTuple):
    """Cost of an image on average.

    Attributes:
        images: how many.
        padded_sizes: how many different sizes they have when the model has padded them.
        cost: parameters, and mean multiply-adds and anchors, rounded to whole numbers.
    """

    images: int
    padded_sizes: int
    cost: Cost

    def as_dict(self) -> dict[str, Any]:
        """As :meth:`Cost.as_dict`, with ``images`` and ``padded_sizes``."""
        return {
            "images": self.images,
            "padded_sizes": self.padded_sizes,
            **self.cost.as_dict(),
        }


def mean_count(model: nn.Module, sizes: Mapping[tuple[int, int], int]) -> MeanCost:
    """Mean cost of images of several sizes, each alone in its batch.

    That is how YOLOF's paper counts (figure 3): the mean over images at their own resized sizes.
    Each padded size is counted once, weighted by its images.

    Args:
        model: as of :func:`count`.
        sizes: number of images by (height, width) in pixels, before the model pads them.

    Raises:
        ValueError: no images, or as of :func:`count`.
        TypeError: as of :func:`count`.
    """
    padded: Counter[tuple[int, int]] = Counter()
    for size, number in sizes.items():
        padded[_padded(model, size)] += number
    images = padded.total()
    if images < 1:
        raise ValueError("there are no images to take the mean over")
    counted = [count(model, size) for size in padded]

    def mean(values: Sequence[int]) -> int:
        weighted = zip(values, padded.values(), strict=True)
        return round(sum(value * number for value, number in weighted) / images)

    backbone, neck, head = (
        PartCost(part.parameters, mean([cost.parts[name].multiply_adds for cost in counted]))
        for name, part in counted[0].parts.items()
    )
    anchors = tuple(map(mean, zip(*(cost.anchors for cost in counted), strict=True)))
    return MeanCost(images, len(padded), Cost(backbone, neck, head, anchors))


def _padded(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) as the model pads an image of ``size`` that is alone in its batch."""
    backbone = getattr(model, "backbone", None)
    divisor = max(1, getattr(backbone, "size_divisibility", 1))
    height, width = (-(-length // divisor) * divisor for length in size)
    return height, width


def innermost(backbone: nn.Module) -> nn.Module:
    """What feature pyramids and encoders are built on."""
    below = getattr(backbone, "bottom_up", None)
    return innermost(below) if isinstance(below, nn.Module) else backbone


@contextmanager
def without_data(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, ``model`` takes and gives tensors that have shapes alone."""
    with (
        torch.no_grad(),
        inference_context(model),
        deform_conv_implementation("torchvision"),
        _fake_mode(model),
    ):
        yield


def empty_image(model: DenseDetector, size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W), padded from ``size`` as the model pads an image; of :func:`without_data`."""
    return torch.empty(1, 3, *_padded(model, size), device=model.device)


def _fake_mode(model: nn.Module) -> FakeTensorMode:
    """The mode in which the model was built, or a new one for a real model."""
    for parameter in model.parameters():
        if isinstance(parameter, FakeTensor):
            return parameter.fake_mode
    return FakeTensorMode(allow_non_fake_inputs=True)


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _deform_conv_formula() -> dict[Any, Callable[..., int]]:
    def flops(
        _input: Sequence[int],
        weight: Sequence[int],
        *_: Any,
        out_shape: Sequence[int],
        **__: Any,
    ) -> int:
        return FLOPS_PER_MULTIPLY_ADD * math.prod(out_shape) * math.prod(weight[1:])

    return {torch.ops.torchvision.deform_conv2d: flops}
