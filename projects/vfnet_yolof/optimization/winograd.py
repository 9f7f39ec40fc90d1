"""3x3 convolution with a quarter of the multiplications, for float32 on the CPU.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.1: F(4x4,
3x3) computes a tile of 4x4 outputs from 6x6 inputs with 36 products for each pair of channels
instead of 144. The polynomials are evaluated at 0, +-5/8, +-3/2 and infinity instead of 0, +-1,
+-2: float32 then errs by 5 times what the direct convolution does, instead of by 12 times.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

TILE = 4  # outputs of a tile along each axis
REACH = TILE + 2  # inputs of a tile along each axis
POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)  # exact in binary
# Fewer channels: the transforms cost what the products save. Few tiles, or large kernels for the
# small maps where they are found: reading the transformed kernel, fourfold in size, does.
MIN_CHANNELS = 192
MAX_PAIRS = 2**17  # of an input and an output channel
MIN_TILES = 64
MIN_TILES_IN_TRAINING = 100  # where the kernel is transformed in every step
# Enough for a product to be worth reading the kernel, and few enough for the cache.
TILES_AT_ONCE = 100


def _polynomial(roots: list[float]) -> Tensor:
    """Coefficients of the product of (x - root), from the constant upwards."""
    coefficients = torch.ones(1, dtype=torch.float64)
    for root in roots:
        shifted = F.pad(coefficients, (1, 0))
        coefficients = shifted - root * F.pad(coefficients, (0, 1))
    return coefficients


def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Float64 matrices of inputs (6, 6), kernels (6, 3) and outputs (4, 6) along one axis.

    With a 1-d input d (6,) and kernel g (3,): ``outputs @ ((kernels @ g) * (inputs @ d))`` is the
    correlation of d with g, of length 4 (Toom and Cook's algorithm, transposed).
    """
    inputs = torch.zeros(REACH, REACH, dtype=torch.float64)
    kernels = torch.zeros(REACH, 3, dtype=torch.float64)
    outputs = torch.zeros(TILE, REACH, dtype=torch.float64)
    for i, point in enumerate(POINTS):
        others = [x for x in POINTS if x != point]
        inputs[i, : REACH - 1] = _polynomial(others)
        kernels[i] = torch.tensor([point**k for k in range(3)], dtype=torch.float64)
        kernels[i] /= math.prod(point - x for x in others)
        outputs[:, i] = torch.tensor([point**k for k in range(TILE)], dtype=torch.float64)
    inputs[-1] = _polynomial(list(POINTS))
    kernels[-1, -1] = outputs[-1, -1] = 1.0
    # Powers of two move between inputs and kernels without error; rows of about the same size
    # keep more digits.
    scale = torch.exp2(inputs.abs().sum(1).log2().round())[:, None]
    return inputs / scale, kernels * scale, outputs


@functools.cache
def _both_axes(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The matrices for both axes at once: (36, 36) of inputs, (36, 9) of kernels, (16, 36) of
    outputs. One product with a small matrix reads and writes memory once."""
    with torch.inference_mode(False):  # such tensors could not be used in training
        return tuple(torch.kron(x, x).to(device, dtype) for x in transforms())


def suits(conv: nn.Module) -> bool:
    """Whether a convolution's product can be computed so, and gains by it on maps large enough."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.weight.dtype == torch.float32
        and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
        and conv.in_channels * conv.out_channels <= MAX_PAIRS
    )


def tiles_of(x: Tensor, padding: tuple[int, int]) -> int:
    """How many tiles cover the output for one of the maps (N, C, H, W)."""
    return math.prod(_tiles(_output_size(x.shape[2:], padding)))


def _output_size(size: Sequence[int], padding: tuple[int, int]) -> tuple[int, int]:
    return size[0] + 2 * padding[0] - 2, size[1] + 2 * padding[1] - 2


def _tiles(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tiles that cover outputs of ``size``."""
    return -(-size[0] // TILE), -(-size[1] // TILE)


def transformed_kernel(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) -> (36, I, O)."""
    out_channels, in_channels = weight.shape[:2]
    _, kernels, _ = _both_axes(weight.device, weight.dtype)
    taps = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return torch.mm(kernels, taps).view(REACH**2, in_channels, out_channels)


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """The convolution of (N, I, H, W) with a transformed kernel (36, I, O), with channels last."""
    height, width = _output_size(x.shape[2:], padding)
    rows, columns = _tiles((height, width))
    padded = _padded(x, rows, columns, padding)
    output = torch.empty(
        (len(x), kernel.shape[-1], rows * TILE, columns * TILE),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    target = output.permute(0, 2, 3, 1)
    for image, band in _bands(len(x), rows, columns):
        _convolve_band(padded[image, band.start : band.stop + 2], kernel, bias, target[image, band])
    if output.shape[2:] == (height, width):
        return output
    return output[:, :, :height, :width].contiguous(memory_format=torch.channels_last)


def kernel_gradient(x: Tensor, grad: Tensor, padding: tuple[int, int]) -> Tensor:
    """Gradient (O, I, 3, 3) from the input (N, I, H, W) and that of the output (N, O, Ho, Wo).

    Each step of :func:`convolve` is linear; this goes through their transposes.
    """
    rows, columns = _tiles(grad.shape[2:])
    padded = _padded(x, rows, columns, padding)
    grad = grad.permute(0, 2, 3, 1)
    grad = F.pad(grad, (0, 0, 0, TILE * columns - grad.shape[2], 0, TILE * rows - grad.shape[1]))
    in_channels, out_channels = padded.shape[-1], grad.shape[-1]
    inputs, kernels, outputs = _both_axes(x.device, x.dtype)
    total = x.new_zeros(REACH**2, in_channels, out_channels)
    for image, band in _bands(len(x), rows, columns):
        tiles = torch.mm(inputs, _overlapping(padded[image, band.start : band.stop + 2]))
        pieces = grad[image, band].unflatten(0, (-1, TILE)).unflatten(2, (columns, TILE))
        pieces = torch.mm(outputs.t(), pieces.permute(1, 3, 0, 2, 4).reshape(TILE**2, -1))
        total.baddbmm_(
            tiles.view(REACH**2, -1, in_channels).transpose(1, 2),
            pieces.view(REACH**2, -1, out_channels),
        )
    taps = torch.mm(kernels.t(), total.view(REACH**2, -1))
    return taps.view(3, 3, in_channels, out_channels).permute(3, 2, 0, 1)


def _padded(x: Tensor, rows: int, columns: int, padding: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> (N, 4 * ``rows`` + 2, 4 * ``columns`` + 2, C)."""
    x = x.permute(0, 2, 3, 1).contiguous()
    vertical, horizontal = padding
    below = TILE * rows + 2 - vertical - x.shape[1]
    right = TILE * columns + 2 - horizontal - x.shape[2]
    return F.pad(x, (0, 0, horizontal, right, vertical, below))


def _bands(images: int, rows: int, columns: int) -> Iterator[tuple[int, slice]]:
    """Image, and rows of outputs with about ``TILES_AT_ONCE`` tiles."""
    pieces = max(1, round(rows * columns / TILES_AT_ONCE))
    step = -(-rows // pieces)
    for image in range(images):
        for first in range(0, rows, step):
            yield image, slice(first * TILE, min(first + step, rows) * TILE)


def _overlapping(padded: Tensor) -> Tensor:
    """(4 * rows + 2, 4 * columns + 2, C) -> the tiles (36, rows * columns * C)."""
    rows, columns = (size // TILE for size in padded.shape[:2])
    down, along, _ = padded.stride()
    tiles = padded.as_strided(
        (REACH, REACH, rows, columns, padded.shape[-1]),
        (down, along, TILE * down, TILE * along, 1),
    )
    return tiles.reshape(REACH**2, -1)


def _convolve_band(padded: Tensor, kernel: Tensor, bias: Tensor | None, output: Tensor) -> None:
    """(4 * rows + 2, 4 * columns + 2, I) -> ``output`` (4 * rows, 4 * columns, O)."""
    rows, columns = (size // TILE for size in output.shape[:2])
    inputs, _, outputs = _both_axes(padded.device, padded.dtype)
    tiles = torch.mm(inputs, _overlapping(padded))
    products = torch.bmm(tiles.view(REACH**2, -1, padded.shape[-1]), kernel)
    result = torch.mm(outputs, products.view(REACH**2, -1))
    result = result.view(TILE, TILE, rows, columns, -1).permute(2, 0, 3, 1, 4)
    target = output.view(rows, TILE, columns, TILE, -1)
    if bias is None:
        target.copy_(result)
    else:
        torch.add(result, bias, out=target)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, padding) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return convolve(x, transformed_kernel(weight), bias, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:  # the convolution of the gradient with the turned kernel
            turned = transformed_kernel(weight.flip(2, 3).transpose(0, 1))
            of_x = convolve(grad, turned, None, tuple(2 - pad for pad in ctx.padding))
        if ctx.needs_input_grad[1]:
            of_weight = kernel_gradient(x, grad, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None


def winograd_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]
) -> Tensor:
    """``F.conv2d`` with a 3x3 kernel and stride 1, and with gradients by the same algorithm.

    Args:
        x: (N, I, H, W), float32.
        weight: (O, I, 3, 3); bias: (O,) or None.
        padding: vertical and horizontal, in cells.

    Returns:
        (N, O, Ho, Wo), channels last.
    """
    return _Winograd.apply(x, weight, bias, padding)


class WinogradConv2d(nn.Module):
    """The function of a 3x3 convolution with stride 1, computed in tiles; small maps directly.

    Holds its kernel twice, one of them fourfold in size. Inference only, float32.

    Args:
        conv: a convolution that :meth:`suits`; the ``activation`` of one of Detectron2's is kept.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if not self.suits(conv):
            raise ValueError(f"no 3x3 float32 convolution with stride 1 and many channels: {conv}")
        self.padding = conv.padding
        self.activation = getattr(conv, "activation", None)
        weight = conv.weight.detach()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.register_buffer("kernel", transformed_kernel(weight.double()).float())

    @staticmethod
    def suits(conv: nn.Module) -> bool:
        """Whether ``conv`` can be computed so, and gains by it."""
        return suits(conv) and getattr(conv, "norm", None) is None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C_out, Ho, Wo), channels last."""
        if tiles_of(x, self.padding) >= MIN_TILES:
            output = convolve(x, self.kernel, self.bias, self.padding)
        else:
            output = F.conv2d(x, self.weight, self.bias, padding=self.padding)
        return output if self.activation is None else self.activation(output)

    def extra_repr(self) -> str:
        _, channels, out_channels = self.kernel.shape
        return f"{channels}, {out_channels}, padding={self.padding}"
