"""What every assigner is asked and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


class Assigner(Protocol):
    """A rule by which the anchors of one image learn its boxes; it knows no model and no loss.

    All are called alike, with what a detector knows. Detectors with one box for each location call
    the square around it its anchor, and have no predictions to give.
    """

    def __call__(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        *,
        level_sizes: Sequence[int],
        valid: Tensor | None = None,
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
        gt_classes: Tensor | None = None,
    ) -> Match:
        """Match the boxes of one image.

        Args:
            anchors: (R, 4) xyxy pixels, levels concatenated.
            gt_boxes: (M, 4) xyxy pixels, ground truth.
            level_sizes: number of anchors of each level; their sum is R.
            valid: (R,) bool, anchors that may be used; the others are as if they were not there,
                i.e. background. All if None.
            pred_boxes: (R, 4) xyxy pixels, the anchors' predictions, decoded.
            pred_logits: (R, K) their class scores before the sigmoid.
            gt_classes: (M,) int64 in [0, K), the boxes' classes.

        Raises:
            ValueError: the rule needs something that is None.
        """
        ...


class Match(ABC):
    """Which of the R anchors of one image learns which of its boxes.

    Attributes:
        anchor_idx: (P,) int64 of each pair of an anchor and a box.
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

    @abstractmethod
    def labels(self, gt_classes: Tensor, num_classes: int) -> Tensor:
        """(R,) int64 as Detectron2 has them: class of a positive, K for background, -1 ignored."""

    @abstractmethod
    def box_of_each(self) -> Tensor:
        """(R,) int64: index of the box that each anchor learns, -1 for background.

        Raises:
            ValueError: an anchor may learn several boxes, or may be neither positive nor negative.
        """

    def _background(self, num_classes: int) -> Tensor:
        background = torch.full_like(self.ignored_anchors, num_classes, dtype=torch.int64)
        return background.masked_fill(self.ignored_anchors, -1)


@dataclass(frozen=True, eq=False)
class SingleMatch(Match):
    """Every anchor learns one box at most; pairs come in the anchors' order.

    Its size does not depend on what was found, so that it is there without waiting for the device;
    for the pairs the host waits.

    Args:
        assigned: (R,) int64, index of the box of each anchor, -1 for none.
        ignored: (R,) bool, see ``ignored_anchors``; None from a rule that ignores none.
    """

    assigned: Tensor
    ignored: Tensor | None = None

    @cached_property
    def anchor_idx(self) -> Tensor:  # type: ignore[override]  # only read
        return (self.assigned >= 0).nonzero()[:, 0]

    @cached_property
    def gt_idx(self) -> Tensor:  # type: ignore[override]  # only read
        return self.assigned[self.anchor_idx]

    @property
    def ignored_pairs(self) -> Tensor:  # type: ignore[override]  # only read
        return torch.zeros_like(self.anchor_idx, dtype=torch.bool)

    @property
    def ignored_anchors(self) -> Tensor:  # type: ignore[override]  # only read
        none = torch.zeros_like(self.assigned, dtype=torch.bool)
        return none if self.ignored is None else self.ignored

    def labels(self, gt_classes: Tensor, num_classes: int) -> Tensor:
        labels = self._background(num_classes)
        if len(gt_classes) == 0:
            return labels
        return torch.where(self.assigned >= 0, gt_classes[self.assigned.clamp(min=0)], labels)

    def box_of_each(self) -> Tensor:
        if self.ignored is not None:
            raise ValueError(
                "the assigner ignores anchors between positives and negatives, which a detector "
                "with one box for each location cannot: choose ATSSAssigner or FCOSAssigner"
            )
        return self.assigned


@dataclass(frozen=True, eq=False)
class PairMatch(Match):
    """An anchor may stand in several pairs; see :class:`Match` for the arguments."""

    anchor_idx: Tensor
    gt_idx: Tensor
    ignored_pairs: Tensor
    ignored_anchors: Tensor

    def labels(self, gt_classes: Tensor, num_classes: int) -> Tensor:
        """See :class:`Match`.

        Of several pairs with the same anchor the last one counts, as in the YOLOF reference.
        """
        labels = self._background(num_classes)
        # The order of writes to one place is not defined on every device, that of numbers is.
        order = torch.arange(len(self.anchor_idx), device=self.anchor_idx.device)
        last = torch.full_like(labels, -1).scatter_reduce_(0, self.anchor_idx, order, reduce="amax")
        if len(order) == 0:
            return labels
        pair_labels = gt_classes[self.gt_idx].masked_fill(self.ignored_pairs, -1)
        return torch.where(last >= 0, pair_labels[last.clamp(min=0)], labels)

    def box_of_each(self) -> Tensor:
        raise ValueError(
            "the assigner pairs anchors and boxes, several to one, which a detector with one box "
            "for each location cannot learn: choose ATSSAssigner or FCOSAssigner"
        )

    def spread(self, valid: Tensor) -> PairMatch:
        """The match of all anchors, where this one is of those in ``valid`` (R,) bool alone."""
        rows = valid.nonzero()[:, 0]
        ignored = torch.zeros_like(valid)
        ignored[rows] = self.ignored_anchors
        return PairMatch(rows[self.anchor_idx], self.gt_idx, self.ignored_pairs, ignored)
