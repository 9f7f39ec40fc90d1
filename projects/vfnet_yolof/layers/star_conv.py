"""Star-shaped box features (VarifocalNet paper, section 4.3).

A box is described by nine points: the location (x, y) that predicts it, the location's projections
onto the four sides, and the four corners. They form a 3x3 grid, {top, y, bottom} times {left, x,
right}, in the order of the taps of a 3x3 kernel, so a deformable convolution reads them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .deform_conv import DeformConv2d

# Of each tap its (y, x), among left, top, right, bottom and what does not move.
_TAPS = [side for y in (1, 4, 3) for x in (0, 4, 2) for side in (y, x)]


def star_points(centers: Tensor, ltrb: Tensor) -> Tensor:
    """The nine points of each box.

    Args:
        centers: (P, 2), (x, y) of the locations in pixels.
        ltrb: (P, 4) distances to the left, top, right and bottom side in pixels.

    Returns:
        (P, 9, 2), (x, y) in pixels.
    """
    x, y = centers.unbind(-1)
    left, top, right, bottom = ltrb.unbind(-1)
    columns = torch.stack((x - left, x, x + right), dim=-1)[:, None, :].expand(-1, 3, 3)
    rows = torch.stack((y - top, y, y + bottom), dim=-1)[:, :, None].expand(-1, 3, 3)
    return torch.stack((columns, rows), dim=-1).flatten(1, 2)


class StarOffsets(nn.Module):
    """Offsets from the regular 3x3 grid to the nine points of the box at each location.

    Args:
        gradient_mul: share of the gradient that reaches the distances, in [0, 1].
    """

    outwards: Tensor
    taps: Tensor

    def __init__(self, gradient_mul: float = 0.1) -> None:
        super().__init__()
        self.gradient_mul = gradient_mul
        # Constants on the model's device, which are not part of checkpoints.
        outwards = torch.tensor([-1.0, -1.0, 1.0, 1.0]).view(1, 4, 1, 1)
        self.register_buffer("outwards", outwards, persistent=False)
        self.register_buffer("taps", torch.tensor(_TAPS), persistent=False)

    def forward(self, ltrb_px: Tensor, stride: float) -> Tensor:
        """Offsets (N, 18, H, W) in cells, (y, x) for each tap, in ``ltrb_px``'s dtype.

        A box of zero size has all nine points on its location.

        Args:
            ltrb_px: (N, 4, H, W) distances to the left, top, right and bottom side in pixels.
            stride: pixels per cell of the feature map.

        Raises:
            ValueError: the distances have another shape.
        """
        if ltrb_px.dim() != 4 or ltrb_px.shape[1] != 4:
            raise ValueError(f"distances must be (N, 4, H, W), got {tuple(ltrb_px.shape)}")
        distances = (1 - self.gradient_mul) * ltrb_px.detach() + self.gradient_mul * ltrb_px
        # The grid has its first row at -1 and its last at +1; the middle one does not move. Few
        # operators, since while exporting each of them costs time on every level.
        outwards = self.outwards.to(distances.dtype)
        moved = F.pad(distances / stride * outwards - outwards, (0, 0, 0, 0, 0, 1))
        return moved.index_select(1, self.taps)


class StarConv2d(DeformConv2d):
    """3x3 convolution over the nine points of a box: no bias, no normalisation.

    Weights are initialised like those of the head's other convolutions in the reference (normal,
    std 0.01).

    ``forward(features, offsets)`` takes (N, ``in_channels``, H, W) and the (N, 18, H, W) of
    :class:`StarOffsets`; the only parameter is ``weight``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)
        nn.init.normal_(self.weight, std=0.01)
