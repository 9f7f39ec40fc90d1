"""Grid points and the square anchors around them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """The R points of all levels, from fine to coarse, row by row.

    Attributes:
        points: (R, 2), x before y, pixels. anchors: (R, 4) xyxy pixels, square, around the points.
        strides: (R,) float32, of each point's level. level_sizes: number of points of each level.
    """

    points: Tensor
    anchors: Tensor
    strides: Tensor
    level_sizes: list[int]


class PointGenerator:
    """Points of every pyramid level, and the anchors that assigners measure against.

    Args:
        strides: pixels between neighbouring points of each level.
        offset: position of the first point in units of the stride. 0 puts points on the
            corners of the cells, as the VFNet and GFL references do; 0.5 on their centres.
        octave_base_scale: side of the square anchor in units of the stride (ATSS, section 3).
    """

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        offset: float = 0.0,
        octave_base_scale: float = 8.0,
    ) -> None:
        self.strides = tuple(strides)
        self.offset = offset
        self.octave_base_scale = octave_base_scale

    def points(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> list[Tensor]:
        """Points (H*W, 2), x before y, in pixels, row by row, for each level's (H, W)."""
        self._check(sizes)
        return [
            torch.stack(
                torch.meshgrid(
                    self._positions(w, stride, device),
                    self._positions(h, stride, device),
                    indexing="xy",
                ),
                dim=-1,
            ).reshape(-1, 2)
            for (h, w), stride in zip(sizes, self.strides, strict=True)
        ]

    def _positions(self, count: int, stride: int, device: torch.device) -> Tensor:
        cells = torch.arange(count, device=device, dtype=torch.float32)
        return (cells + self.offset) * stride

    def grid(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Grid:
        """Points, anchors and strides of all levels, for each level's (H, W)."""
        points = self.points(sizes, device)
        anchors, strides = [], []
        for p, stride in zip(points, self.strides, strict=True):
            half = 0.5 * self.octave_base_scale * stride
            anchors.append(torch.cat([p - half, p + half], dim=-1))
            strides.append(torch.full((len(p),), float(stride), device=device))
        return Grid(
            torch.cat(points), torch.cat(anchors), torch.cat(strides), [len(p) for p in points]
        )

    def valid_mask(
        self, sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int], device: torch.device
    ) -> Tensor:
        """:func:`valid_mask` of these points."""
        self._check(sizes)
        return valid_mask(sizes, self.strides, padded_size, device)

    def _check(self, sizes: Sequence[tuple[int, int]]) -> None:
        if len(sizes) != len(self.strides):
            raise ValueError(
                f"the head sees {len(sizes)} feature levels, but {len(self.strides)} strides "
                f"are configured: {self.strides}"
            )


class PixelIndexPoints(PointGenerator):
    """Points in the middle of their cells, counted in pixels: (i + 0.5) * stride - 0.5.

    The first pixel of an image is 0 and its last is width - 1, as in MMDetection 1.x.
    """

    def __init__(
        self, strides: Sequence[int] = (8, 16, 32, 64, 128), octave_base_scale: float = 8.0
    ) -> None:
        super().__init__(strides, offset=0.5, octave_base_scale=octave_base_scale)

    def _positions(self, count: int, stride: int, device: torch.device) -> Tensor:
        return super()._positions(count, stride, device) - 0.5


def valid_mask(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    padded_size: tuple[int, int],
    device: torch.device,
) -> Tensor:
    """Which cells lie in an image of ``padded_size`` (H, W): (R,) bool over all levels.

    A batch is padded to its largest image; what lies beyond an image's own padded size belongs to
    no image. ``sizes``: (H, W) of each level.
    """
    masks = []
    for (h, w), stride in zip(sizes, strides, strict=True):
        rows = torch.arange(h, device=device) < -(-padded_size[0] // stride)
        columns = torch.arange(w, device=device) < -(-padded_size[1] // stride)
        masks.append((rows[:, None] & columns[None, :]).flatten())
    return torch.cat(masks)
