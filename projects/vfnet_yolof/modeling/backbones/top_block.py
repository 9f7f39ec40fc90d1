"""Extra levels on top of a feature pyramid."""

from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import Tensor


class LastLevelP6P7NoReLU(LastLevelP6P7):
    """P6 and P7 as GFL's reference makes them: without the ReLU between the two.

    Arguments and parameter names are those of Detectron2's ``LastLevelP6P7``.
    """

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) of ``in_feature`` -> [P6, P7] at half and a quarter of its size."""
        p6 = self.p6(x)
        return [p6, self.p7(p6)]
