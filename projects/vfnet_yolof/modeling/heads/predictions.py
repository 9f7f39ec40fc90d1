"""What heads with one box for each location return."""

from typing import NamedTuple

from torch import Tensor


class PointPredictions(NamedTuple):
    """Raw predictions, one entry for each pyramid level.

    Attributes:
        logits: (N, K, H, W) classification scores before the sigmoid.
        ltrb: (N, 4, H, W) distances in pixels, float32, from the location to the left, top,
            right and bottom side of the final box.
        ltrb_init: the same for the box before its refinement; None if boxes are not refined.
        centerness: (N, 1, H, W) logits; None without a centerness branch.
    """

    logits: list[Tensor]
    ltrb: list[Tensor]
    ltrb_init: list[Tensor] | None = None
    centerness: list[Tensor] | None = None

    @property
    def sides(self) -> list[Tensor]:
        """Box numbers as the detector decodes them; here they are distances already."""
        return self.ltrb

    @property
    def quality_logits(self) -> list[Tensor] | None:
        """Logits of a factor on the scores."""
        return self.centerness


class SidePredictions(NamedTuple):
    """Raw predictions of a head whose box sides have a representation of their own.

    Attributes:
        logits: (N, K, H, W) classification scores before the sigmoid.
        sides: (N, 4 * channels, H, W), side-major, see
            :mod:`vfnet_yolof.modeling.representations`.
        quality_logits: (N, 1, H, W) of a factor on the scores; None without a quality branch.
    """

    logits: list[Tensor]
    sides: list[Tensor]
    quality_logits: list[Tensor] | None = None


class AnchorPredictions(NamedTuple):
    """Raw predictions of a head with A anchors for each location, one entry for each level.

    Attributes:
        logits: (N, A * K, H, W) classification scores before the sigmoid, anchor-major.
        deltas: (N, A * 4, H, W), see :class:`vfnet_yolof.modeling.box_coders.ClampedDeltaCoder`.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
