"""3x3 convolution with a quarter of the multiplications, for inference on the CPU.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.1: F(4x4,
3x3) computes a tile of 4x4 outputs from 6x6 inputs with 36 products for each pair of channels
instead of 144. The polynomials are evaluated at 0, +-5/8, +-3/2 and infinity instead of 0, +-1,
+-2: float32 then errs by 5 times what the direct convolution does, instead of by 12 times.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4  # outputs of a tile along each axis
REACH = TILE + 2  # inputs of a tile along each axis
POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)  # exact in binary
# Fewer channels: the transforms cost what the products save. Fewer tiles, or larger kernels for the
# small maps where they are found: reading the transformed kernel, fourfold in size, does.
MIN_CHANNELS = 96
MAX_PAIRS = 2**17  # of an input and an output channel
MIN_TILES = 32
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
        self.out_channels = conv.out_channels
        self.padding = conv.padding
        self.activation = getattr(conv, "activation", None)
        inputs, kernels, outputs = transforms()
        with torch.no_grad():
            kernel = conv.weight.detach().double()
            kernel = torch.einsum("ij,ocjk,lk->ilco", kernels, kernel, kernels)
        for name, tensor in (
            ("weight", conv.weight.detach()),
            ("bias", None if conv.bias is None else conv.bias.detach()),
            ("kernel", kernel.flatten(0, 1).float().contiguous()),
            # Both axes at once: one product with a small matrix reads and writes memory once.
            ("inputs", torch.kron(inputs, inputs).float()),
            ("outputs", torch.kron(outputs, outputs).float()),
        ):
            self.register_buffer(name, tensor)

    @staticmethod
    def suits(conv: nn.Module) -> bool:
        """Whether ``conv`` can be computed so, and gains by it."""
        return (
            isinstance(conv, nn.Conv2d)
            and conv.kernel_size == (3, 3)
            and conv.stride == (1, 1)
            and conv.dilation == (1, 1)
            and conv.groups == 1
            and conv.padding_mode == "zeros"
            and not isinstance(conv.padding, str)
            and conv.weight.dtype == torch.float32
            and getattr(conv, "norm", None) is None
            and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
            and conv.in_channels * conv.out_channels <= MAX_PAIRS
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, ``out_channels``, Ho, Wo), channels last."""
        height, width = (
            size + 2 * pad - 2 for size, pad in zip(x.shape[2:], self.padding, strict=True)
        )
        rows, columns = -(-height // TILE), -(-width // TILE)
        if rows * columns < MIN_TILES:
            output = F.conv2d(x, self.weight, self.bias, padding=self.padding)
        else:
            output = self._tiled(x.permute(0, 2, 3, 1), rows, columns)
            output = output[:, :height, :width].contiguous().permute(0, 3, 1, 2)
        return output if self.activation is None else self.activation(output)

    def _tiled(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """(N, H, W, C) -> (N, 4 * ``rows``, 4 * ``columns``, ``out_channels``)."""
        vertical, horizontal = self.padding
        below = TILE * rows + 2 - vertical - x.shape[1]
        right = TILE * columns + 2 - horizontal - x.shape[2]
        padded = F.pad(x, (0, 0, horizontal, right, vertical, below))
        output = x.new_empty(len(x), rows * TILE, columns * TILE, self.out_channels)
        pieces = max(1, round(rows * columns / TILES_AT_ONCE))
        step = -(-rows // pieces)
        for image in range(len(x)):
            for first in range(0, rows, step):
                band = slice(first * TILE, min(first + step, rows) * TILE)
                self._band(padded[image, band.start : band.stop + 2], output[image, band])
        return output

    def _band(self, padded: Tensor, output: Tensor) -> None:
        """(4 * rows + 2, 4 * columns + 2, C) -> ``output`` (4 * rows, 4 * columns, C_out)."""
        channels = padded.shape[-1]
        rows, columns = (size // TILE for size in output.shape[:2])
        down, along, _ = padded.stride()
        tiles = padded.as_strided(
            (REACH, REACH, rows, columns, channels),
            (down, along, TILE * down, TILE * along, 1),
        )
        transformed = torch.mm(self.inputs, tiles.reshape(REACH**2, -1))
        products = torch.bmm(transformed.view(REACH**2, -1, channels), self.kernel)
        result = torch.mm(self.outputs, products.view(REACH**2, -1))
        result = result.view(TILE, TILE, rows, columns, self.out_channels).permute(2, 0, 3, 1, 4)
        target = output.view(rows, TILE, columns, TILE, self.out_channels)
        if self.bias is None:
            target.copy_(result)
        else:
            torch.add(result, self.bias, out=target)

    def extra_repr(self) -> str:
        return f"{self.kernel.shape[1]}, {self.out_channels}, padding={self.padding}"
