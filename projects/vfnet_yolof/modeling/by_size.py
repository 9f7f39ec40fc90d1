"""Detection in batches whose other images do not change the result for an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn


class BySize(nn.Module):
    """A detector that gives an image the same detections in every batch.

    A batch is padded to its largest image, in training as in the reference implementations. Zeros
    beyond an image's own padded size change what group norms and convolutions near its border make
    of it, so here images go through the detector together only if they have the same size when
    padded alone. What remains is rounding, as kernels choose their algorithm by the batch size.

    Whatever detects in batches goes through this or :func:`detect_by_size`: evaluation, the
    predictor and multi-scale testing. The detector's own ``forward`` pads as the reference does.
    """

    def __init__(self, model: nn.Module) -> None:
        """model: takes Detectron2's input dicts; see :func:`padded_size` for what it may have."""
        super().__init__()
        self.model = model
        self.training = model.training  # which evaluation puts back afterwards

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[Any]:
        """As the detector's in inference."""
        return detect_by_size(self.model, batched_inputs)

    def detect(
        self, batched_inputs: Sequence[dict[str, Any]], fields: Sequence[str] = ()
    ) -> list[Any]:
        """As the detector's own ``detect``, see :class:`.OneStageDetector`."""
        return detect_by_size(self.model, batched_inputs, fields)


def detect_by_size(
    model: nn.Module, batched_inputs: Sequence[dict[str, Any]], fields: Sequence[str] = ()
) -> list[Any]:
    """The model's outputs for ``batched_inputs``, in their order; see :class:`BySize`.

    Args:
        model: takes Detectron2's input dicts.
        fields: what to add to the detections, by the names that the model's ``detect`` takes.

    Raises:
        TypeError: the model has no such fields.
    """
    detect: Callable[[list[dict[str, Any]]], Sequence[Any]] = model
    if fields:
        with_fields = getattr(model, "detect", None)
        if with_fields is None:
            raise TypeError(f"{type(model).__name__} has no fields to add to its detections")
        detect = partial(with_fields, fields=fields)
    groups: dict[tuple[int, int], list[int]] = {}
    for index, inputs in enumerate(batched_inputs):
        groups.setdefault(padded_size(model, inputs["image"].shape[-2:]), []).append(index)
    outputs: dict[int, Any] = {}
    for indices in groups.values():
        found = detect([batched_inputs[index] for index in indices])
        outputs.update(zip(indices, found, strict=True))
    return [outputs[index] for index in range(len(batched_inputs))]


def padded_size(model: nn.Module, size: Sequence[int]) -> tuple[int, int]:
    """(H, W) at which the model sees an image of ``size`` (H, W) alone.

    That is a multiple of its backbone's ``size_divisibility``; the size itself without one.
    """
    divisor = max(1, getattr(getattr(model, "backbone", None), "size_divisibility", 1))
    height, width = (-(-side // divisor) * divisor for side in size)
    return height, width
