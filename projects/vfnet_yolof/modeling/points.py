"""Grid points and the square anchors around them."""

from collections.abc import Sequence

import torch
from torch import Tensor


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

    def anchors(self, points: Sequence[Tensor]) -> list[Tensor]:
        """Square anchors (H*W, 4) xyxy in pixels around each level's points."""
        sides = [0.5 * self.octave_base_scale * stride for stride in self.strides]
        return [
            torch.cat([p - half, p + half], dim=-1) for p, half in zip(points, sides, strict=True)
        ]

    def strides_of(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """Stride of each point, (R,) float32 over all levels."""
        self._check(sizes)
        return torch.cat(
            [
                torch.full((h * w,), float(stride), device=device)
                for (h, w), stride in zip(sizes, self.strides, strict=True)
            ]
        )

    def valid_mask(
        self, sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int], device: torch.device
    ) -> Tensor:
        """Which points lie in an image of ``padded_size`` (H, W): (R,) bool over all levels.

        A batch is padded to its largest image; what lies beyond an image's own padded size
        belongs to no image.
        """
        self._check(sizes)
        masks = []
        for (h, w), stride in zip(sizes, self.strides, strict=True):
            rows = torch.arange(h, device=device) < -(-padded_size[0] // stride)
            columns = torch.arange(w, device=device) < -(-padded_size[1] // stride)
            masks.append((rows[:, None] & columns[None, :]).flatten())
        return torch.cat(masks)

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
