"""Two towers, and the heads of FCOS, ATSS and GFL on them (Generalized Focal Loss, figure 4)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...layers.conv import Scale, bias_for_prior, conv_tower, prediction_conv
from ..representations import DiracDelta, GeneralDistribution


class PointPredictions(NamedTuple):
    """Raw predictions of a head with one box for each location, one entry for each level.

    Attributes:
        logits: (N, K, H, W) classification scores before the sigmoid.
        sides: (N, 4 * channels, H, W), side-major, in the head's representation, see
            :mod:`vfnet_yolof.modeling.representations`; of a head without one (N, 4, H, W), float32
            distances in pixels to the left, top, right and bottom side of the final box.
        ltrb_init: the same distances of the box before its refinement; None if boxes are not
            refined.
        quality_logits: (N, 1, H, W) of a factor on the scores; None without a quality branch.
        sides_init: as ``sides``, of the box before its refinement; None unless boxes are refined in
            the head's representation.
    """

    logits: list[Tensor]
    sides: list[Tensor]
    ltrb_init: list[Tensor] | None = None
    quality_logits: list[Tensor] | None = None
    sides_init: list[Tensor] | None = None

    @property
    def level_sizes(self) -> list[int]:
        """Locations of an image on each level."""
        return [x.shape[-2] * x.shape[-1] for x in self.logits]


class TwoTowers(nn.Module):
    """A tower for the classes and one for the boxes, with the same weights on all levels.

    Args:
        in_channels: channels of the pyramid's feature maps.
        conv_channels, num_convs: width and depth of the two towers (256 and 4 in FCOS and GFL).
        strides: pixels per feature cell of each level.
        norm: normalisation of the towers.
        dcn_on_last_conv: DCNv2 as each tower's last convolution.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        conv_channels: int = 256,
        num_convs: int = 4,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        norm: str = "GN",
        dcn_on_last_conv: bool = False,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.conv_channels = conv_channels
        tower: dict[str, Any] = dict(norm=norm, dcn_on_last_conv=dcn_on_last_conv)
        self.cls_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)
        self.reg_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)


class GFLHead(TwoTowers):
    """Class scores, and box sides with a learned factor for each level.

    With a :class:`DiracDelta` it is FCOS's head, with a quality branch as well that of ATSS;
    without norm and factors that of FoveaBox.

    Args:
        representation: of the box sides, see :mod:`vfnet_yolof.modeling.representations`;
            a :class:`GeneralDistribution` by default.
        quality: add a branch on the regression tower that predicts the quality of boxes apart from
            their class: the separate representations of table 1a.
        level_scales: learn a factor on the sides of each level; FoveaBox does not.
        num_classes: K. prior_prob: foreground probability at initialisation.
        **towers: see :class:`TwoTowers`.
    """

    def __init__(
        self,
        *,
        representation: Any = None,
        quality: bool = False,
        level_scales: bool = True,
        num_classes: int = 80,
        prior_prob: float = 0.01,
        **towers: Any,
    ) -> None:
        super().__init__(**towers)
        self.representation = (
            representation if representation is not None else GeneralDistribution()
        )
        prior = bias_for_prior(prior_prob)
        self.cls_logits = prediction_conv(self.conv_channels, num_classes, prior)
        self.reg = prediction_conv(self.conv_channels, 4 * self.representation.channels)
        self.scales = nn.ModuleList(
            Scale() if level_scales else nn.Identity() for _ in self.strides
        )
        self.quality = prediction_conv(self.conv_channels, 1) if quality else None

    def forward(self, features: Sequence[Tensor]) -> PointPredictions:
        """Predict on every level; ``features`` are (N, C, H, W), finest first."""
        logits, sides, quality_logits = [], [], []
        for x, scale, _ in zip(features, self.scales, self.strides, strict=True):
            reg_feature = self.reg_tower(x)
            logits.append(self.cls_logits(self.cls_tower(x)))
            sides.append(scale(self.reg(reg_feature)))
            if self.quality is not None:
                quality_logits.append(self.quality(reg_feature))
        return PointPredictions(logits, sides, quality_logits=quality_logits or None)


def PointHead(
    *,
    reg_denom: Sequence[float] | None = None,
    centerness: bool = True,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
    **options: Any,
) -> GFLHead:
    """The head of FCOS+ATSS and of raw VFNet, by the names that saved configurations have.

    Args:
        reg_denom: pixels that a raw distance of exp(0) stands for on each level; the strides if
            None. As many strides on each level.
        centerness: add a quality branch. strides, **options: see :class:`GFLHead`.

    Raises:
        ValueError: ``reg_denom`` is not the same multiple of the stride on each level.
    """
    denominators = list(strides if reg_denom is None else reg_denom)
    if len(denominators) != len(strides):
        raise ValueError(f"strides {strides} and reg_denom {reg_denom} differ in length")
    unit, *others = dict.fromkeys(x / s for x, s in zip(denominators, strides, strict=True))
    if others:
        raise ValueError(
            f"reg_denom {reg_denom} must be one multiple of the strides {strides} on all levels"
        )
    return GFLHead(representation=DiracDelta(unit), quality=centerness, strides=strides, **options)
