"""The head of VFNet (VarifocalNet, section 4.5 and figure 3)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.conv import ConvNormAct, Scale, bias_for_prior, prediction_conv
from ...layers.star_conv import StarConv2d, StarOffsets
from .gfl_head import PointPredictions, TwoTowers

REG_DENOM = (64.0, 128.0, 256.0, 512.0, 1024.0)


class VFNetHead(TwoTowers):
    """Initial box, star-shaped features, refined box and IoU-aware classification score.

    Args:
        num_classes: K.
        num_convs: depth of the two towers.
        reg_denom: one number per level; an initial distance is exp(prediction) * reg_denom pixels.
            The reference uses the upper bounds of FCOS's size ranges or, optionally, the strides.
        refine: predict the four scaling factors of section 4.4. Without them the initial box
            is the final one, and star-shaped features serve the classification alone.
        gradient_mul: share of the gradient that the star offsets pass to the initial box.
        prior_prob: foreground probability at initialisation.
        norm: normalisation of the towers and of the convolution after the regression tower.
        **towers: see :class:`TwoTowers`; ``dcn_on_last_conv`` is for DCN backbones (section 5).
    """

    representation = None  # predictions are distances in pixels

    def __init__(
        self,
        *,
        num_classes: int = 80,
        num_convs: int = 3,
        reg_denom: Sequence[float] = REG_DENOM,
        refine: bool = True,
        gradient_mul: float = 0.1,
        prior_prob: float = 0.01,
        norm: str = "GN",
        **towers: Any,
    ) -> None:
        super().__init__(num_convs=num_convs, norm=norm, **towers)
        if len(self.strides) != len(reg_denom):
            raise ValueError(f"strides {self.strides} and reg_denom {reg_denom} differ in length")
        self.reg_denom = tuple(float(x) for x in reg_denom)
        self.star_offsets = StarOffsets(gradient_mul)
        width = self.conv_channels

        self.reg_conv = ConvNormAct(width, width, norm=norm)
        self.reg_init = prediction_conv(width, 4)
        self.scales_init = nn.ModuleList(Scale() for _ in self.strides)

        self.refine = refine
        if refine:
            self.reg_star = StarConv2d(width, width)
            self.reg_refine = prediction_conv(width, 4)
            self.scales_refine = nn.ModuleList(Scale() for _ in self.strides)

        self.cls_star = StarConv2d(width, width)
        self.cls_logits = prediction_conv(width, num_classes, bias_for_prior(prior_prob))

    def forward(self, features: Sequence[Tensor]) -> PointPredictions:
        """Predict on every level; ``features`` are (N, C, H, W), finest first."""
        levels = [self._forward_level(x, level) for level, x in enumerate(features)]
        logits, ltrb_init, ltrb = (list(outputs) for outputs in zip(*levels, strict=True))
        if not self.refine:
            return PointPredictions(logits, ltrb_init)
        return PointPredictions(logits, ltrb, ltrb_init)

    def _forward_level(self, x: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor | None]:
        cls_feature, reg_feature = self.cls_tower(x), self.reg_tower(x)

        # Distances leave half precision before exp: 65504 is not a large box.
        raw = self.scales_init[level](self.reg_init(self.reg_conv(reg_feature)))
        ltrb_init = raw.float().exp() * self.reg_denom[level]
        offsets = self.star_offsets(ltrb_init, self.strides[level])

        ltrb = None
        if self.refine:
            star = F.relu(self.reg_star(reg_feature, offsets))
            factors = self.scales_refine[level](self.reg_refine(star)).float().exp()
            # The refinement learns factors on a given box (section 4.4): the initial box
            # learns from its own loss only.
            ltrb = factors * ltrb_init.detach()

        logits = self.cls_logits(F.relu(self.cls_star(cls_feature, offsets)))
        return logits, ltrb_init, ltrb
