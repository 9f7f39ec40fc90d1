"""ATSS where a location has several anchors (YOLOF, tables 5e and 8)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .atss import ATSSAssigner
from .match import Match


class AnchorATSSAssigner:
    """Adaptive training sample selection among all anchors.

    ``topk`` counts anchors, as the text of YOLOF's paper does ("top9 anchors"). The anchors of one
    location are equally far from a box and are taken in their order; five at each of
    them, ``topk=15`` means those of the three nearest locations. The authors of ATSS count
    locations instead; multiply ``topk`` by the number of anchors of each for their rule. Nothing is
    ignored.

    Args:
        topk, max_pairs: see :class:`ATSSAssigner`, which does the work.
    """

    def __init__(self, topk: int = 9, max_pairs: int = 4_000_000) -> None:
        self.assigner = ATSSAssigner(topk, max_pairs)

    @torch.no_grad()
    def __call__(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        *,
        level_sizes: Sequence[int],
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
        gt_classes: Tensor | None = None,
    ) -> Match:
        """Match the boxes of one image.

        Args:
            anchors: (R, 4) xyxy pixels, levels concatenated. gt_boxes: (M, 4).
            level_sizes: number of anchors of each level; their sum is R.
            pred_boxes, pred_logits, gt_classes: not used; all assigners are called alike.

        Returns:
            At most one pair for each anchor, in the anchors' order.
        """
        return Match.from_assigned(self.assigner(anchors, gt_boxes, level_sizes=level_sizes))
