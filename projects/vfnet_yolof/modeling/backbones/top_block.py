"""Extra levels on top of a feature pyramid."""

from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor


class LastLevelP6P7Norm(LastLevelP6P7):
    """P6 and P7 with a norm after each convolution, as in the neck of VFNet-X.

    There is a ReLU between the two. Parameters are ``p6.weight``, ``p6.norm.weight`` and so on.
    """

    def __init__(
        self, in_channels: int, out_channels: int, in_feature: str = "p5", norm: str = "GN"
    ) -> None:
        super().__init__(in_channels, out_channels, in_feature)
        if not norm:
            return
        for name, channels in (("p6", in_channels), ("p7", out_channels)):
            conv = Conv2d(
                channels, out_channels, 3, 2, 1, bias=False, norm=get_norm(norm, out_channels)
            )
            c2_xavier_fill(conv)
            setattr(self, name, conv)


class LastLevelP6P7NoReLU(LastLevelP6P7Norm):
    """P6 and P7 as GFL's reference makes them: without the ReLU between the two.

    Arguments and parameter names are those of Detectron2's ``LastLevelP6P7``; ``norm`` is for the
    neck of RepPoints.
    """

    def __init__(
        self, in_channels: int, out_channels: int, in_feature: str = "p5", norm: str = ""
    ) -> None:
        super().__init__(in_channels, out_channels, in_feature, norm)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) of ``in_feature`` -> [P6, P7] at half and a quarter of its size."""
        p6 = self.p6(x)
        return [p6, self.p7(p6)]
