"""Operators that are not torch's own, in ONNX's terms.

Each takes and gives values of the graph that is being written; numbers are constants of it.
"""

from __future__ import annotations

import math
from typing import Any

_FLOAT = 1  # ONNX's number of the type


def suppress(
    boxes: Any, scores: Any, iou_threshold: float, class_agnostic: bool, max_detections: int
) -> Any:
    """``vfnet_yolof::suppress`` by NonMaxSuppression, which knows images and classes itself."""
    op = _operators()

    competing = scores
    if class_agnostic:
        competing = op.ReduceMax(scores, _ints(op, 2), keepdims=1)
    by_class = op.Transpose(competing, perm=[0, 2, 1])
    chosen = op.NonMaxSuppression(
        boxes,
        by_class,
        _ints(op, max_detections),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.0]),  # scores must be above it
    )
    # Rows of (image, class, box); what is not among them keeps a zero.
    zeros = op.Mul(by_class, op.Constant(value_float=0.0))
    ones = op.Expand(
        op.Constant(value_floats=[1.0]), op.Slice(op.Shape(chosen), _ints(op, 0), _ints(op, 1))
    )
    kept = op.Transpose(op.ScatterND(zeros, chosen, ones), perm=[0, 2, 1])
    if class_agnostic:
        best = op.ArgMax(scores, axis=2, keepdims=1)
        number_of_classes = op.Gather(op.Shape(scores), op.Constant(value_int=2))
        numbers = op.Range(op.Constant(value_int=0), number_of_classes, op.Constant(value_int=1))
        kept = op.Mul(kept, op.Cast(op.Equal(best, numbers), to=_FLOAT))
    return op.Mul(scores, kept)


def deform_by_grid_sample(
    input: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Any:
    """``torchvision::deform_conv2d`` by GridSample: see ``layers/deform_forms.py``."""
    op = _operators()

    out_channels, group_channels, *kernel = (int(x) for x in weight.shape)
    taps, channels = math.prod(kernel), group_channels * groups
    out_size = op.Slice(op.Shape(offset), _ints(op, 2), _ints(op, 4))
    in_size = op.Slice(op.Shape(input), _ints(op, 2), _ints(op, 4))

    # (N * G, K, 2, Ho, Wo): y and x
    offset = op.Reshape(offset, op.Concat(_ints(op, -1, taps, 2), out_size, axis=0))
    tap_numbers = [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
    geometry = ((stride_h, pad_h, dilation_h), (stride_w, pad_w, dilation_w))
    axes = []
    for axis, (stride, pad, dilation) in enumerate(geometry):
        size = op.Cast(op.Gather(in_size, op.Constant(value_int=axis)), to=_FLOAT)
        cells = op.Range(
            op.Constant(value_int=0),
            op.Gather(out_size, op.Constant(value_int=axis)),
            op.Constant(value_int=1),
        )
        first = op.Mul(op.Cast(cells, to=_FLOAT), op.Constant(value_float=float(stride)))
        first = op.Reshape(first, _ints(op, 1, *((-1, 1) if axis == 0 else (1, -1))))
        steps = [float(tap[axis] * dilation - pad) for tap in tap_numbers]
        tap = op.Reshape(op.Constant(value_floats=steps), _ints(op, taps, 1, 1))
        moved = op.Gather(offset, op.Constant(value_int=axis), axis=2)
        position = op.Add(moved, op.Add(first, tap))
        # Beyond that the sample is 0; positions stay finite.
        position = op.Clip(position, op.Constant(value_float=-2.0), size)
        doubled = op.Add(op.Mul(position, op.Constant(value_float=2.0)), _one(op))
        axes.append(op.Unsqueeze(op.Sub(op.Div(doubled, size), _one(op)), _ints(op, 4)))
    grid = op.Reshape(op.Concat(axes[1], axes[0], axis=4), _ints(op, 0, taps, -1, 2))

    pixels = op.Reshape(input, op.Concat(_ints(op, -1, channels // offset_groups), in_size, axis=0))
    columns = op.GridSample(pixels, grid, align_corners=0, mode="linear", padding_mode="zeros")
    if use_mask:
        places = op.ReduceProd(out_size, keepdims=1)
        columns = op.Mul(
            columns, op.Reshape(mask, op.Concat(_ints(op, -1, 1, taps), places, axis=0))
        )
    columns = op.Reshape(columns, op.Concat(_ints(op, -1, channels * taps), out_size, axis=0))
    kernel_1x1 = op.Reshape(weight, _ints(op, out_channels, group_channels * taps, 1, 1))
    return op.Conv(columns, kernel_1x1, bias, group=groups)


def _operators() -> Any:
    from onnxscript import opset20

    return opset20  # its types are too narrow for values of a graph that is being written


def _ints(op: Any, *values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _one(op: Any) -> Any:
    return op.Constant(value_float=1.0)
