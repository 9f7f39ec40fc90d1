"""3x3 convolution with a quarter of the multiplications, for float32 on the CPU.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.1: F(4x4,
3x3) computes a tile of 4x4 outputs from 6x6 inputs with 36 products for each pair of channels
instead of 144. The polynomials are evaluated at 0, +-5/8, +-3/2 and infinity instead of 0, +-1,
+-2: float32 then errs by 5 times what the direct convolution does, instead of by 12 times.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4  # outputs of a tile along each axis
REACH = TILE + 2  # inputs of a tile along each axis
POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)  # exact in binary
# Fewer channels: the transforms cost what the products save. Few tiles, or large kernels for the
# small maps where they are found: reading the transformed kernel, fourfold in size, does.
MIN_CHANNELS = 192
MAX_PAIRS = 2**17  # of an input and an output channel
MIN_TILES = 64
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
    with torch.inference_mode(False):  # such tensors could not be used outside of it
        inputs, kernels, outputs = (torch.kron(x, x).to(device, dtype) for x in transforms())
    return inputs, kernels, outputs


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


class WinogradConv2d(nn.Module):
    """The function of a 3x3 convolution with stride 1, computed in tiles; small maps directly.

    Holds its kernel twice, one of them fourfold in size. Inference only, float32.

    Args:
        conv: a convolution that :meth:`suits`; the ``activation`` of one of Detectron2's is kept.
    """

    weight: Tensor
    bias: Tensor | None
    kernel: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if not self.suits(conv) or isinstance(conv.padding, str):
            raise ValueError(f"no 3x3 float32 convolution with stride 1 and many channels: {conv}")
        rows, columns = conv.padding
        self.padding = (rows, columns)
        self.activation: Callable[[Tensor], Tensor] | None = getattr(conv, "activation", None)
        weight = conv.weight.detach()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.register_buffer("kernel", transformed_kernel(weight.double()).float())

    @staticmethod
    def suits(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
        """Whether ``conv`` can be computed so, and gains by it on maps that are large enough."""
        return (
            isinstance(conv, nn.Conv2d)
            and getattr(conv, "norm", None) is None
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
