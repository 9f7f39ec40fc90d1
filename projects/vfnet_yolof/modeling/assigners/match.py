"""What an assigner finds where a location has several anchors and a box several of them."""

from typing import NamedTuple

import torch
from torch import Tensor


class Match(NamedTuple):
    """Pairs of anchors and boxes of one image with R anchors.

    Attributes:
        anchor_idx: (P,) int64; an anchor may stand in several pairs.
        gt_idx: (P,) int64 index of the box of each pair.
        ignored_pairs: (P,) bool, pairs that are no positives after all, and whose anchors are no
            negatives either.
        ignored_anchors: (R,) bool, anchors that are no negatives; those of pairs are positives
            all the same.
    """

    anchor_idx: Tensor
    gt_idx: Tensor
    ignored_pairs: Tensor
    ignored_anchors: Tensor

    @classmethod
    def from_assigned(cls, assigned: Tensor, ignored: Tensor | None = None) -> "Match":
        """From the index of each anchor's box (R,), -1 for none, and anchors to ignore (R,)."""
        anchor_idx = (assigned >= 0).nonzero()[:, 0]
        if ignored is None:
            ignored = torch.zeros_like(assigned, dtype=torch.bool)
        return cls(
            anchor_idx,
            assigned[anchor_idx],
            torch.zeros_like(anchor_idx, dtype=torch.bool),
            ignored,
        )

    def labels(self, gt_classes: Tensor, num_classes: int) -> Tensor:
        """(R,) int64 as Detectron2 has them: class of a positive, K for background, -1 ignored.

        Of several pairs with the same anchor the last one counts, as in the YOLOF reference.
        """
        background = torch.full_like(self.ignored_anchors, num_classes, dtype=torch.int64)
        labels = background.masked_fill(self.ignored_anchors, -1)
        # The order of writes to one place is not defined on every device, that of numbers is.
        order = torch.arange(len(self.anchor_idx), device=self.anchor_idx.device)
        last = torch.full_like(labels, -1).scatter_reduce_(0, self.anchor_idx, order, reduce="amax")
        if len(order) == 0:
            return labels
        pair_labels = gt_classes[self.gt_idx].masked_fill(self.ignored_pairs, -1)
        return torch.where(last >= 0, pair_labels[last.clamp(min=0)], labels)
