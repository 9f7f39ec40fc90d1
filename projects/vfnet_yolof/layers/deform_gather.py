"""Deformable convolution on the CPU: gathered columns and one matrix product.

Each sample of a deformable convolution is a weighted sum of four pixels. With channels last, a
pixel is one contiguous row, and ``embedding_bag`` sums weighted rows at memory speed; what
remains is the matrix product of an ordinary convolution. Columns are made piece by piece, so
they stay in the cache, and once more in the backward pass instead of being kept.

Names: N images, P output positions of the whole batch, K taps, G offset groups, C channels.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Larger pieces leave the cache, and from 32 MiB on the C library returns every buffer to the
# system, whose page faults then cost more than the arithmetic.
MAX_COLUMN_BYTES = 12 * 2**20


class Samples(NamedTuple):
    """Four pixels and their bilinear weights for every sample, both (P * K * G, 4)."""

    rows: Tensor
    weights: Tensor


def bilinear_samples(positions: Tensor, mask: Tensor | None, height: int, width: int) -> Samples:
    """Pixels around each sampling position.

    Args:
        positions: (2, N, G, K, Ho, Wo), y and x in pixels of the input map, in [-2, size].
        mask: (N, G, K, Ho, Wo) factors of the samples, or None.

    Returns:
        Integer rows of the map seen as (N * H * W * G, C / G), and weights with gradient to the
        positions and the mask. Pixels outside of the map have weight 0.
    """
    _, num_images, groups = positions.shape[:3]
    # Pairs and axes lead, so that every operation runs along contiguous positions.
    low = positions.detach().floor()
    upper = positions - low
    pixels = low.int()
    pixels = torch.stack((pixels, pixels + 1), dim=1)
    # Clamping integers keeps the rows legal whatever a NaN was converted to; the weight stays NaN.
    last = torch.tensor([height - 1, width - 1], dtype=torch.int32).view(2, *[1] * 6)
    inside = pixels.clamp(min=0).minimum(last)
    y_weights, x_weights = torch.stack((1 - upper, upper), dim=1) * (inside == pixels)
    if mask is not None:
        y_weights = y_weights * mask
    corners = y_weights[:, None] * x_weights

    # int32 sorts in half the time, but must be able to count the rows.
    dtype = torch.int32 if num_images * height * width * groups < 2**31 else torch.int64
    y, x = inside.to(dtype)
    cells = torch.arange(num_images, dtype=dtype).view(-1, 1, 1, 1, 1) * (height * width)
    group = torch.arange(groups, dtype=dtype).view(-1, 1, 1, 1)
    rows = (y * (width * groups))[:, None] + (x * groups + (cells * groups + group))
    return Samples(_by_sample(rows), _by_sample(corners))


def _by_sample(corners: Tensor) -> Tensor:
    """(2, 2, N, G, K, Ho, Wo) -> (P * K * G, 4), the order of the columns."""
    return corners.flatten(0, 1).flatten(4).permute(1, 4, 3, 2, 0).reshape(-1, 4)


def gathered_product(pixels: Tensor, samples: Samples, weight: Tensor) -> Tensor:
    """Matrix product of the gathered columns with the kernel.

    Args:
        pixels: (N * H * W * G, C / G) rows of the channels-last map.
        samples: as from :func:`bilinear_samples`.
        weight: (groups, C_out / groups, K, C / groups).

    Returns:
        (P, C_out), differentiable once in ``pixels``, ``samples.weights`` and ``weight``.
    """
    # Rows that are not contiguous would silently take embedding_bag's slow path (10x).
    return _GatheredProduct.apply(
        pixels.contiguous(), samples.rows, samples.weights, weight.contiguous()
    )


class _Pieces(NamedTuple):
    """How the columns are cut along the positions."""

    positions: int
    step: int
    samples: int  # rows of the columns for one position, K * G

    @classmethod
    def of(cls, pixels: Tensor, rows: Tensor, weight: Tensor) -> "_Pieces":
        groups, _, taps, group_channels = weight.shape
        channels = groups * group_channels
        samples = taps * channels // pixels.shape[1]
        positions = len(rows) // samples
        most = max(1, MAX_COLUMN_BYTES // (taps * channels * pixels.element_size()))
        count = max(1, -(-positions // most))
        return cls(positions, max(1, -(-positions // count)), samples)

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """Slices of the positions, and of their samples."""
        for start in range(0, self.positions, self.step):
            stop = min(start + self.step, self.positions)
            yield slice(start, stop), slice(start * self.samples, stop * self.samples)


def _gather(pixels: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(rows, pixels, mode="sum", per_sample_weights=weights)


def _split_groups(columns: Tensor, weight: Tensor) -> Tensor:
    """(p * K * G, C / G) -> (groups, p, K * C / groups), a view when there is one group."""
    groups, _, taps, channels = weight.shape
    columns = columns.view(-1, taps, groups, channels).permute(2, 0, 1, 3)
    return columns.reshape(groups, -1, taps * channels)


def _scatter(grad_pixels: Tensor, grad_columns: Tensor, rows: Tensor, weights: Tensor) -> None:
    """Add the transposed gather: every pixel collects from the samples that used it.

    Sorting by pixel turns the scatter into another gather, parallel and without atomics.
    """
    by_pixel, order = rows.flatten().sort()
    first, last = int(by_pixel[0]), int(by_pixel[-1])
    touched = torch.arange(first, last + 1, dtype=by_pixel.dtype)
    grad_pixels[first : last + 1] += F.embedding_bag(
        order // 4,
        grad_columns,
        torch.searchsorted(by_pixel, touched),
        mode="sum",
        per_sample_weights=weights.flatten()[order],
    )


class _GatheredProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, rows: Tensor, weights: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(pixels, rows, weights, weight)
        pieces = _Pieces.of(pixels, rows, weight)
        groups, group_out = weight.shape[:2]
        kernel = weight.flatten(2).transpose(1, 2)
        output = pixels.new_empty(pieces.positions, groups, group_out)
        for at, samples in pieces.slices():
            columns = _split_groups(_gather(pixels, rows[samples], weights[samples]), weight)
            torch.bmm(columns, kernel, out=output[at].transpose(0, 1))
            del columns  # its memory serves the next piece
        return output.flatten(1)

    @staticmethod
    @once_differentiable
    @torch.autocast("cpu", enabled=False)  # also when backward() is called inside of one
    def backward(  # type: ignore[override]  # once_differentiable hides the arguments' names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad_output,) = grad_outputs
        pixels, rows, weights, weight = ctx.saved_tensors
        need_pixels, _, need_weights, need_kernel = ctx.needs_input_grad
        pieces = _Pieces.of(pixels, rows, weight)
        groups, group_out, taps, channels = weight.shape
        kernel = weight.flatten(2)
        grad_output = grad_output.reshape(-1, groups, group_out).transpose(0, 1)
        grad_pixels = torch.zeros_like(pixels) if need_pixels else None
        grad_weights = torch.empty_like(weights) if need_weights else None
        grad_kernel = torch.zeros_like(kernel) if need_kernel else None

        for at, samples in pieces.slices():
            piece_rows, piece_weights = rows[samples], weights[samples]
            with torch.set_grad_enabled(need_weights):
                piece_weights = piece_weights.detach().requires_grad_(need_weights)
                columns = _gather(pixels, piece_rows, piece_weights)
            grad_piece = grad_output[:, at]
            if grad_kernel is not None:
                grad_kernel.baddbmm_(
                    grad_piece.transpose(1, 2), _split_groups(columns.detach(), weight)
                )
            if not (need_pixels or need_weights):
                continue
            grad_columns = torch.bmm(grad_piece, kernel).view(groups, -1, taps, channels)
            grad_columns = grad_columns.permute(1, 2, 0, 3).reshape(columns.shape)
            if grad_weights is not None:
                (grad_weights[samples],) = torch.autograd.grad(columns, piece_weights, grad_columns)
            if grad_pixels is not None:
                _scatter(grad_pixels, grad_columns, piece_rows, piece_weights.detach())
        return (
            grad_pixels,
            None,
            grad_weights,
            None if grad_kernel is None else grad_kernel.view_as(weight),
        )
