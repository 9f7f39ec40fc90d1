"""Deformable convolution (DCN v1 and v2) with one meaning and several implementations.

Sources: Dai et al., "Deformable Convolutional Networks", section 2.1; Zhu et al., "Deformable
ConvNets v2", section 3.2 (modulation).

Names: N images, C channels, G offset groups (``deform_groups``), K = kernel height * width taps
in row-major order. Offset channels are ordered by group, tap, then (y, x), in cells of the input
map; mask channels by group, then tap. A sample is the bilinear mean of four pixels, of which
those outside of the map are 0.

Layers are an island of float32 in mixed precision: a half-precision offset is wrong by an eighth
of a cell beyond column 128.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from .deform_forms import IMPLEMENTATIONS, Geometry, full_precision

_chosen: ContextVar[str | None] = ContextVar("deform_conv_implementation", default=None)


@contextmanager
def deform_conv_implementation(name: str) -> Iterator[None]:
    """Every deformable convolution inside of the ``with`` block uses this implementation.

    Args:
        name: one of ``IMPLEMENTATIONS``; see :func:`deform_conv2d`.
    """
    token = _chosen.set(_known(name))
    try:
        yield
    finally:
        _chosen.reset(token)


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
    implementation: str | None = None,
) -> Tensor:
    """Deformable convolution.

    Args:
        input: (N, C, H, W).
        offset: (N, 2 * G * K, Ho, Wo), (y, x) of each tap relative to the regular grid, in cells.
        weight: (C_out, C / groups, kernel height, kernel width); groups follow from its shape.
        bias: (C_out,) or None.
        stride, padding, dilation: as of a convolution, one number or (vertical, horizontal).
        mask: (N, G * K, Ho, Wo) factors of the samples (DCNv2), or None.
        implementation: None for the one set by :func:`deform_conv_implementation`, else the
            one for the occasion: ``"grid_sample"`` while tracing, compiling or exporting,
            ``"embedding_bag"`` on the CPU, ``"torchvision"`` elsewhere.

            - ``"embedding_bag"``: CPU; columns gathered from channels-last rows.
            - ``"torchvision"``: torchvision's operator; any device.
            - ``"detectron2"``: Detectron2's compiled CUDA kernel, never chosen by itself.
            - ``"grid_sample"``: plain operators, for export; any device.

    Returns:
        (N, C_out, Ho, Wo) in ``input``'s dtype and, on the CPU, its memory format.

        Computed in the widest dtype among ``input`` and ``weight``, in float32 under autocast.
        Models in half precision: ``"embedding_bag"`` and ``"grid_sample"`` find the positions in
        float32 and multiply in the model's dtype; the compiled operators, which would round the
        positions, compute in float32.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown implementation.
        RuntimeError: the implementation cannot run here.
    """
    name = _known(implementation or _chosen.get() or _implementation_for(input))
    geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation))
    if not torch.jit.is_tracing():
        _check_shapes(input, offset, weight, bias, mask, geometry)
    device_type = input.device.type
    dtype = max(input.dtype, weight.dtype, key=lambda x: torch.finfo(x).bits)
    if torch.is_autocast_enabled(device_type) or name in ("torchvision", "detectron2"):
        dtype = full_precision(dtype)
    with _without_autocast(device_type):
        output = IMPLEMENTATIONS[name](
            input.to(dtype),
            offset,
            weight.to(dtype),
            None if bias is None else bias.to(dtype),
            mask,
            geometry,
        )
    return output.to(input.dtype)


def _without_autocast(device_type: str) -> AbstractContextManager[None]:
    """Autocast off; nothing at all where it is off already, to leave no mark in exported graphs."""
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _implementation_for(input: Tensor) -> str:
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling():
        return "grid_sample"
    return "embedding_bag" if input.device.type == "cpu" else "torchvision"


def _known(name: str) -> str:
    if name not in IMPLEMENTATIONS:
        raise ValueError(
            f"unknown deformable convolution {name!r}: choose one of {', '.join(IMPLEMENTATIONS)}"
        )
    return name


def _check_shapes(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    geometry: Geometry,
) -> None:
    if input.dim() != 4 or weight.dim() != 4:
        raise ValueError(
            "deformable convolution needs input (N, C, H, W) and weight (C_out, C / groups, kh, kw)"
            f", got {tuple(input.shape)} and {tuple(weight.shape)}"
        )
    num_images, channels, *size = input.shape
    out_channels, group_channels, *kernel = weight.shape
    if channels % group_channels or out_channels % (channels // group_channels):
        raise ValueError(
            f"weight {tuple(weight.shape)} does not divide {channels} input channels into groups"
        )
    if bias is not None and bias.shape != (out_channels,):
        raise ValueError(f"bias must be ({out_channels},), got {tuple(bias.shape)}")
    out_size = [
        (length + 2 * pad - step * (taps - 1) - 1) // hop + 1
        for length, taps, hop, pad, step in zip(size, kernel, *geometry, strict=True)
    ]
    if min(out_size) < 1:
        raise ValueError(f"kernel {tuple(kernel)} does not fit on the padded map {tuple(size)}")
    taps = math.prod(kernel)
    groups = offset.shape[1] // (2 * taps) if offset.dim() == 4 else 0
    expected = (num_images, 2 * groups * taps, *out_size)
    if groups < 1 or channels % groups or offset.shape != expected:
        raise ValueError(
            f"offset must be ({num_images}, 2 * deform_groups * {taps}, {out_size[0]}, "
            f"{out_size[1]}) with deform_groups dividing {channels}, got {tuple(offset.shape)}"
        )
    if mask is not None and mask.shape != (num_images, groups * taps, *out_size):
        raise ValueError(
            f"mask must be ({num_images}, {groups * taps}, {out_size[0]}, {out_size[1]}), "
            f"got {tuple(mask.shape)}"
        )


class DeformConv2d(nn.Module):
    """Deformable convolution whose offsets are given; then ``norm`` and ``activation``, if any.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as of
            ``torch.nn.Conv2d``.
        deform_groups: input channels are split into as many groups, each with its own offsets.
        norm, activation: applied to the output in this order, as in Detectron2's ``Conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = False,
        *,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        for name, count in (("groups", groups), ("deform_groups", deform_groups)):
            if in_channels % count:
                raise ValueError(f"{name}={count} does not divide in_channels={in_channels}")
        if out_channels % groups:
            raise ValueError(f"groups={groups} does not divide out_channels={out_channels}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.deform_groups = deform_groups
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        # The uniform initialisation of torch.nn.Conv2d.
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve with given offsets.

        Args:
            x: (N, C, H, W).
            offset, mask: as of :func:`deform_conv2d`.
        """
        x = deform_conv2d(
            x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
        )
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, deform_groups={self.deform_groups}, "
            f"bias={self.bias is not None}"
        )


class DeformConvPack(DeformConv2d):
    """DCNv1: a deformable convolution that predicts its own offsets, at first all zero.

    Parameters are named ``weight``, ``bias``, ``conv_offset.weight`` and ``conv_offset.bias``.
    """

    numbers_per_tap = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taps = self.kernel_size[0] * self.kernel_size[1]
        self.conv_offset = nn.Conv2d(
            self.in_channels,
            self.deform_groups * self.numbers_per_tap * taps,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
        )
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # predicts its offsets
        """Convolve with predicted offsets: (N, C, H, W) -> (N, C_out, Ho, Wo)."""
        return super().forward(x, *self._predict(x))

    def _predict(self, x: Tensor) -> tuple[Tensor, ...]:
        """Offsets (and, in a subclass, the mask) from the input, in float32 under autocast."""
        device_type = x.device.type
        if torch.is_autocast_enabled(device_type):
            x = x.to(self.conv_offset.weight.dtype)
        with _without_autocast(device_type):
            return (self.conv_offset(x),)


class ModulatedDeformConvPack(DeformConvPack):
    """DCNv2: offsets and a mask in (0, 1) from one convolution, at first 0 and 0.5.

    ``conv_offset`` has the offsets in its first two thirds and the mask's logits in the last.
    """

    numbers_per_tap = 3

    def _predict(self, x: Tensor) -> tuple[Tensor, ...]:
        (prediction,) = super()._predict(x)
        taps = prediction.shape[1] // 3
        offset, logits = prediction.split((2 * taps, taps), dim=1)
        return offset, logits.sigmoid()
