"""Several anchors of different sizes and shapes at each location, as MMDetection lays them."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn


class CellAnchors(nn.Module):
    """The same anchors in every cell of a level, with the interface of Detectron2's generators.

    Anchors are computed in float32 in the reference's order of operations: where several have the
    same IoU with a box, the last bit decides which one learns it.

    Args:
        cell_anchors: for each level the anchors (A, 4) xyxy of the cell at the corner, pixels.
        strides: pixels between neighbouring cells of each level.
    """

    # Names and shapes of a head's weights do not tell in which order its anchors are.
    box_geometry = "ratio-major anchors"

    def __init__(self, cell_anchors: Sequence[Tensor], strides: Sequence[int]) -> None:
        super().__init__()
        if len(cell_anchors) != len(strides):
            raise ValueError(f"anchors of {len(cell_anchors)} levels, but strides {list(strides)}")
        self.strides = list(strides)
        for level, anchors in enumerate(cell_anchors):
            self.register_buffer(f"cell_{level}", anchors.float(), persistent=False)

    @property
    def cell_anchors(self) -> list[Tensor]:
        """(A, 4) of each level."""
        return [self.get_buffer(f"cell_{level}") for level in range(len(self.strides))]

    @property
    def num_anchors(self) -> list[int]:
        """Anchors at each location, by level."""
        return [len(x) for x in self.cell_anchors]

    def forward(self, features: Sequence[Tensor]) -> list[Boxes]:
        """Anchors of each level's (N, C, H, W): row by row, those of one cell together.

        Raises:
            ValueError: another number of levels.
        """
        if len(features) != len(self.strides):
            raise ValueError(
                f"the head sees {len(features)} feature levels, but {len(self.strides)} strides "
                f"are configured: {self.strides}"
            )
        found = []
        for x, cell, stride in zip(features, self.cell_anchors, self.strides, strict=True):
            rows, columns = (
                torch.arange(n, device=cell.device, dtype=torch.float32) * stride
                for n in x.shape[-2:]
            )
            shift_x, shift_y = torch.meshgrid(columns, rows, indexing="xy")
            shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1)
            found.append(Boxes((shifts.reshape(-1, 1, 4) + cell).reshape(-1, 4)))
        return found


class OctaveAnchors(CellAnchors):
    """Anchors around the cells' corners, in octaves (RetinaNet, section 4, as in MMDetection).

    Args:
        strides: see :class:`CellAnchors`.
        octave_base_scale: side of the smallest square anchor, in strides.
        scales_per_octave: sizes between one octave and the next.
        ratios: heights in widths; the anchors' order is by ratio, then by size.
    """

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        octave_base_scale: float = 4.0,
        scales_per_octave: int = 3,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> None:
        scales = torch.tensor(
            [octave_base_scale * 2 ** (i / scales_per_octave) for i in range(scales_per_octave)]
        )
        heights = torch.tensor(ratios).sqrt()
        widths = 1 / heights
        super().__init__(
            [
                _centered(
                    (stride * widths[:, None] * scales).flatten(),
                    (stride * heights[:, None] * scales).flatten(),
                    center=0.0,
                )
                for stride in strides
            ],
            strides,
        )


class SSDAnchors(CellAnchors):
    """Anchors around the cells' centres, with a size of their own on each level (SSD, section 2.2).

    They are a square of the level's size, one of the geometric mean of it and the next size, and
    for each ratio r a flat and a tall one with the area of the first.

    Args:
        strides: see :class:`CellAnchors`.
        sizes: pixels, one more than levels.
        ratios: of each level.
    """

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32, 64, 128, 256, 512),
        sizes: Sequence[float] = (20, 51, 133, 215, 296, 378, 460, 542),
        ratios: Sequence[Sequence[int]] = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    ) -> None:
        if not len(strides) == len(ratios) == len(sizes) - 1:
            raise ValueError(
                f"strides {list(strides)}, ratios {list(ratios)} and sizes {list(sizes)} must be "
                "of the same levels, and one size more"
            )
        cells = []
        for stride, size, following, level in zip(strides, sizes, sizes[1:], ratios, strict=False):
            scale = torch.tensor([1.0, (following / size) ** 0.5])
            shapes = torch.tensor([1.0, *(x for r in level for x in (1 / r, r))])
            heights = shapes.sqrt()
            widths = 1 / heights
            # The larger square is the second anchor.
            width = size * torch.cat([scale, scale[0] * widths[1:]])
            height = size * torch.cat([scale, scale[0] * heights[1:]])
            cells.append(_centered(width, height, center=stride / 2))
        super().__init__(cells, strides)


def _centered(widths: Tensor, heights: Tensor, center: float) -> Tensor:
    """(A, 4) xyxy of boxes around the point (center, center)."""
    half_widths, half_heights = 0.5 * widths, 0.5 * heights
    return torch.stack(
        [
            center - half_widths,
            center - half_heights,
            center + half_widths,
            center + half_heights,
        ],
        dim=-1,
    )
