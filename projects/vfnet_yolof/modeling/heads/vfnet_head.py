"""The head of VFNet (VarifocalNet, section 4.5 and figure 3)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.conv import ConvNormAct, Scale, bias_for_prior, conv_tower, prediction_conv
from ...layers.star_conv import StarConv2d, star_offsets
from .predictions import PointPredictions

REG_DENOM = (64.0, 128.0, 256.0, 512.0, 1024.0)


class VFNetHead(nn.Module):
    """Initial box, star-shaped features, refined box and IoU-aware classification score.

    Args:
        in_channels: channels of the pyramid's feature maps.
        num_classes: K.
        conv_channels, num_convs: width and depth of the two towers (256 and 3 in the paper).
        strides: pixels per feature cell of each level.
        reg_denom: pixels that a raw initial distance of exp(0) stands for on each level.
            The reference takes the upper bounds of FCOS's size ranges; the strides are its
            alternative.
        norm: normalisation of the towers.
        refine: predict the four scaling factors of section 4.4. Without them the initial box
            is the final one, and star-shaped features serve the classification alone.
        dcn_on_last_conv: DCNv2 as each tower's last convolution (section 5, with DCN backbones).
        gradient_mul: share of the gradient that the star offsets pass to the initial box.
        prior_prob: foreground probability at initialisation.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        num_classes: int = 80,
        conv_channels: int = 256,
        num_convs: int = 3,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        reg_denom: Sequence[float] = REG_DENOM,
        norm: str = "GN",
        refine: bool = True,
        dcn_on_last_conv: bool = False,
        gradient_mul: float = 0.1,
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__()
        if len(strides) != len(reg_denom):
            raise ValueError(f"strides {strides} and reg_denom {reg_denom} differ in length")
        self.strides = tuple(strides)
        self.reg_denom = tuple(float(x) for x in reg_denom)
        self.gradient_mul = gradient_mul

        tower = dict(norm=norm, dcn_on_last_conv=dcn_on_last_conv)
        self.cls_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)
        self.reg_tower = conv_tower(in_channels, conv_channels, num_convs, **tower)

        self.reg_conv = ConvNormAct(conv_channels, conv_channels, norm=norm)
        self.reg_init = prediction_conv(conv_channels, 4)
        self.scales_init = nn.ModuleList(Scale() for _ in strides)

        self.refine = refine
        if refine:
            self.reg_star = StarConv2d(conv_channels, conv_channels)
            self.reg_refine = prediction_conv(conv_channels, 4)
            self.scales_refine = nn.ModuleList(Scale() for _ in strides)

        self.cls_star = StarConv2d(conv_channels, conv_channels)
        self.cls_logits = prediction_conv(conv_channels, num_classes, bias_for_prior(prior_prob))

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
        offsets = star_offsets(ltrb_init, self.strides[level], self.gradient_mul)

        ltrb = None
        if self.refine:
            star = F.relu(self.reg_star(reg_feature, offsets))
            factors = self.scales_refine[level](self.reg_refine(star)).float().exp()
            # The refinement learns factors on a given box (section 4.4): the initial box
            # learns from its own loss only.
            ltrb = factors * ltrb_init.detach()

        logits = self.cls_logits(F.relu(self.cls_star(cls_feature, offsets)))
        return logits, ltrb_init, ltrb
