"""SSD's head: one convolution for the classes and one for the boxes on each level."""

from collections.abc import Sequence

from torch import Tensor, nn

from ...layers.conv import bias_for_prior
from .anchor_head import AnchorPredictions


class SSDLevel(nn.Module):
    """Class logits, whose bias is ``prior``, and deltas of one level's anchors."""

    def __init__(
        self, in_channels: int, num_anchors: int, num_logits: int, prior: float = 0.0
    ) -> None:
        super().__init__()
        self.cls_logits = nn.Conv2d(in_channels, num_anchors * num_logits, 3, padding=1)
        self.deltas = nn.Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        for conv in (self.cls_logits, self.deltas):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # by default it has one
        nn.init.constant_(self.cls_logits.bias, prior)  # type: ignore[arg-type]  # as above

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_logits(x), self.deltas(x)


class SSDHead(nn.Module):
    """Class logits and box deltas, with weights and numbers of anchors of each level's own.

    Args:
        in_channels: of each level's feature map. num_anchors: of each level.
        num_classes: K.
        background: each anchor has one more class, the last, as the softmax of SSD needs.
        prior_prob: foreground probability at initialisation, for sigmoids; None for biases of 0.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int] = (512, 1024, 512, 256, 256, 256, 256),
        num_anchors: Sequence[int] = (4, 6, 6, 6, 6, 4, 4),
        num_classes: int = 80,
        background: bool = True,
        prior_prob: float | None = None,
    ) -> None:
        super().__init__()
        if len(in_channels) != len(num_anchors):
            raise ValueError(
                f"in_channels {list(in_channels)} and num_anchors {list(num_anchors)} differ in "
                "length"
            )
        self.num_anchors = tuple(num_anchors)
        self.has_background = background
        prior = 0.0 if prior_prob is None else bias_for_prior(prior_prob)
        self.levels = nn.ModuleList(
            SSDLevel(channels, count, num_classes + background, prior)
            for channels, count in zip(in_channels, num_anchors, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> AnchorPredictions:
        """Predict on every level; ``features`` are (N, C, H, W), finest first."""
        levels = [level(x) for level, x in zip(self.levels, features, strict=True)]
        logits, deltas = (list(outputs) for outputs in zip(*levels, strict=True))
        return AnchorPredictions(logits, deltas)
