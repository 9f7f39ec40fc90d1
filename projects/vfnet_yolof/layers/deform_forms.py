"""The implementations behind :func:`vfnet_yolof.layers.deform_conv.deform_conv2d`.

Each takes tensors of checked shapes, input, weight and bias in one dtype, and returns the output
in that dtype. Names as in ``deform_conv``.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from detectron2.layers import deform_conv as detectron2_ops
from torch import Tensor
from torch.nn import functional as F
from torchvision import ops as torchvision_ops

from .deform_gather import bilinear_samples, gathered_product


class Geometry(NamedTuple):
    """(vertical, horizontal) parameters of the regular convolution."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def full_precision(dtype: torch.dtype) -> torch.dtype:
    """float64 stays, every other floating type becomes float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def detectron2_kernel_available() -> bool:
    """Whether this Detectron2 was built with its CUDA kernels."""
    try:
        from detectron2 import _C
    except ImportError:
        return False
    return torch.cuda.is_available() and _C.has_cuda()


def _sampling_positions(
    input: Tensor, offset: Tensor, kernel: Sequence[int], geometry: Geometry
) -> Tensor:
    """(2, N, G, K, Ho, Wo): y and x in pixels of ``input``, in float32 at least.

    Clamped to [-2, size], where the sample is 0 as everywhere beyond: positions stay finite. At
    -1, where the border's taps start, the derivative is still that of torchvision.
    """
    stride, padding, dilation = geometry
    dtype = full_precision(offset.dtype)
    taps = kernel[0] * kernel[1]
    offset = offset.to(dtype).unflatten(1, (-1, taps, 2))

    def arange(n: int) -> Tensor:
        return torch.arange(n, device=offset.device, dtype=dtype)

    rows, columns = (
        (arange(offset.shape[axis - 2]) * stride[axis] - padding[axis]) for axis in (0, 1)
    )
    tap_rows, tap_columns = (arange(kernel[axis]) * dilation[axis] for axis in (0, 1))
    # Tap (i, j) at output (p, q) of the regular convolution, each of the two axes by itself.
    y = tap_rows.repeat_interleave(kernel[1])[:, None, None] + rows[:, None]
    x = tap_columns.repeat(kernel[0])[:, None, None] + columns
    y = (offset[:, :, :, 0] + y).clamp(-2, input.shape[2])
    x = (offset[:, :, :, 1] + x).clamp(-2, input.shape[3])
    return torch.stack((y, x))


def _with_embedding_bag(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    if input.device.type != "cpu":
        raise RuntimeError("deformable convolution 'embedding_bag' is for CPU tensors only")
    num_images, channels, height, width = input.shape
    out_channels, group_channels, *kernel = weight.shape
    positions = _sampling_positions(input, offset, kernel, geometry)
    if mask is not None:
        mask = mask.unflatten(1, (positions.shape[2], -1))
    samples = bilinear_samples(positions, mask, height, width)
    samples = samples._replace(weights=samples.weights.to(input.dtype))
    output = gathered_product(
        input.permute(0, 2, 3, 1).reshape(-1, channels // positions.shape[2]),
        samples,
        # (groups, C_out / groups, K, C / groups)
        weight.flatten(2).transpose(1, 2).unflatten(0, (channels // group_channels, -1)),
    )
    if bias is not None:
        output = output + bias
    output = output.view(num_images, *offset.shape[2:], out_channels).permute(0, 3, 1, 2)
    # Channels last in, channels last out; the layers around expect the format they work in.
    return output.contiguous() if input.is_contiguous() else output


def _with_grid_sample(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    height, width = input.shape[2:]
    out_channels, group_channels, *kernel = weight.shape
    positions = _sampling_positions(input, offset, kernel, geometry)
    groups = positions.shape[2]
    y, x = positions.unbind()
    # `align_corners` would divide by size - 1, which is 0 on the smallest level of a pyramid.
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    pixels = input.unflatten(1, (groups, -1)).flatten(0, 1)
    columns = F.grid_sample(
        pixels.to(grid.dtype),
        grid.flatten(0, 1).flatten(1, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    columns = columns.unflatten(2, (kernel[0] * kernel[1], -1)).unflatten(0, (-1, groups))
    if mask is not None:
        columns = columns * mask.unflatten(1, (groups, -1))[:, :, None]
    # (N, C * K, Ho, Wo): what is left is a 1x1 convolution.
    columns = columns.flatten(1, 3).to(input.dtype)
    kernel_1x1 = weight.flatten(1)[:, :, None, None]
    return F.conv2d(columns, kernel_1x1, bias, groups=input.shape[1] // group_channels)


def _with_torchvision(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    return torchvision_ops.deform_conv2d(
        input,
        offset.to(input.dtype),
        weight,
        bias,
        **geometry._asdict(),
        mask=None if mask is None else mask.to(input.dtype),
    )


def _with_detectron2(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    if input.device.type != "cuda" or not detectron2_kernel_available():
        raise RuntimeError(
            "deformable convolution 'detectron2' needs CUDA tensors and a Detectron2 built with "
            "its CUDA kernels; use 'torchvision'"
        )
    groups = input.shape[1] // weight.shape[1]
    taps = weight.shape[2] * weight.shape[3]
    deform_groups = offset.shape[1] // (2 * taps)
    offset = offset.to(input.dtype)
    if mask is None:
        output = detectron2_ops.deform_conv(input, offset, weight, *geometry, groups, deform_groups)
        return output if bias is None else output + bias[:, None, None]
    for name, (vertical, horizontal) in geometry._asdict().items():
        if vertical != horizontal:
            raise RuntimeError(f"Detectron2's modulated kernel has a single {name} for both axes")
    return detectron2_ops.modulated_deform_conv(
        input,
        offset,
        mask.to(input.dtype),
        weight,
        bias,
        *(vertical for vertical, _ in geometry),
        groups,
        deform_groups,
    )


IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "embedding_bag": _with_embedding_bag,
    "torchvision": _with_torchvision,
    "detectron2": _with_detectron2,
    "grid_sample": _with_grid_sample,
}
