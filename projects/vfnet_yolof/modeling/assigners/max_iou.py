"""Matching by thresholds of the IoU (RetinaNet, section 4; called Max-IoU in YOLOF's paper)."""

from collections.abc import Iterator, Sequence

import torch
from detectron2.modeling.matcher import Matcher
from torch import Tensor
from torchvision.ops import box_iou

from ..boxes import aligned_iou
from .match import SingleMatch


class MaxIoUAssigner:
    """Every anchor learns the box that it overlaps most, if it overlaps it enough.

    An anchor whose highest IoU reaches ``positive_iou`` is positive, one below ``negative_iou``
    is background, and those between are ignored. With ``low_quality_matches`` the anchors that no
    other one beats for some box are positive whatever their IoU; each still learns the box
    that *it* overlaps most, the first one on a tie. These are the rules of Detectron2's
    ``Matcher``, but for one: a box that no anchor touches matches none, where the ``Matcher``
    has all anchors match.

    Args:
        negative_iou, positive_iou: the two thresholds.
        low_quality_matches: see above.
        max_pairs: bound on the (box, anchor) pairs held at once, which bounds the memory (about
            40 bytes a pair) whatever the number of boxes.
    """

    def __init__(
        self,
        negative_iou: float = 0.4,
        positive_iou: float = 0.5,
        low_quality_matches: bool = True,
        max_pairs: int = 2_000_000,
    ) -> None:
        _check_thresholds(negative_iou, positive_iou)
        self.matcher = Matcher(
            [negative_iou, positive_iou], [0, -1, 1], allow_low_quality_matches=low_quality_matches
        )
        self.max_pairs = max_pairs

    @torch.no_grad()
    def __call__(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        *,
        level_sizes: Sequence[int] | None = None,
        valid: Tensor | None = None,
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
        gt_classes: Tensor | None = None,
    ) -> SingleMatch:
        """See :class:`.Assigner`; levels, predictions and classes have no influence."""
        anchors, gt_boxes = anchors.float(), gt_boxes.float()
        assigned = torch.full_like(anchors[:, 0], -1, dtype=torch.int64)
        if len(gt_boxes) == 0 or len(anchors) == 0:
            return SingleMatch(assigned, torch.zeros_like(assigned, dtype=torch.bool))
        # An anchor needs all boxes and the low-quality rule needs all anchors: pieces of anchors
        # are matched with the best IoU over all of them as one more column.
        best = gt_boxes.new_zeros(len(gt_boxes))
        for iou in self._ious(gt_boxes, anchors, valid):
            best = torch.maximum(best, iou.amax(1))
        best = torch.where(best > 0, best, 1.0)[:, None]
        found, labels = [], []
        for iou in self._ious(gt_boxes, anchors, valid):
            idx, label = self.matcher(torch.cat([iou, best], dim=1))
            found.append(idx[:-1])
            labels.append(label[:-1])
        label = torch.cat(labels)
        assigned = torch.where(label == 1, torch.cat(found), assigned)
        return SingleMatch(assigned, label == -1)

    def _ious(self, gt_boxes: Tensor, anchors: Tensor, valid: Tensor | None) -> Iterator[Tensor]:
        """(M, r) IoU of the boxes with one piece of the anchors after the other.

        It is 0 where an anchor is not valid, which then matches nothing.
        """
        step = max(1, self.max_pairs // len(gt_boxes))
        for start in range(0, len(anchors), step):
            piece = slice(start, start + step)
            iou = box_iou(gt_boxes, anchors[piece])
            yield iou if valid is None else iou.masked_fill_(~valid[piece], 0.0)


class MMDetMaxIoUAssigner:
    """Matching by thresholds of the IoU, with the low-quality matches of MMDetection.

    The thresholds are those of :class:`MaxIoUAssigner`. In addition every box gets its best
    anchors, whatever their IoU and whichever box these overlap most; of several boxes the last one
    in the list gets the anchor. The best anchor of a box that overlaps none is each with an IoU of
    0: all of them are positive, where :class:`MaxIoUAssigner` has none.

    Args:
        negative_iou, positive_iou: the two thresholds.
        all_best: a box gets all anchors that have its highest IoU exactly, else the first of them.
        max_pairs: see :class:`MaxIoUAssigner`.

    Raises:
        ValueError: the thresholds are not in order.
    """

    def __init__(
        self,
        negative_iou: float = 0.4,
        positive_iou: float = 0.5,
        all_best: bool = True,
        max_pairs: int = 2_000_000,
    ) -> None:
        _check_thresholds(negative_iou, positive_iou)
        self.negative_iou = negative_iou
        self.positive_iou = positive_iou
        self.all_best = all_best
        self.max_pairs = max_pairs

    @torch.no_grad()
    def __call__(
        self,
        anchors: Tensor,
        gt_boxes: Tensor,
        *,
        level_sizes: Sequence[int] | None = None,
        valid: Tensor | None = None,
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
        gt_classes: Tensor | None = None,
    ) -> SingleMatch:
        """See :class:`.Assigner`; levels, predictions and classes have no influence."""
        anchors, gt_boxes = anchors.float(), gt_boxes.float()
        if len(gt_boxes) == 0 or len(anchors) == 0:
            none = torch.full_like(anchors[:, 0], -1, dtype=torch.int64)
            return SingleMatch(none, torch.zeros_like(none, dtype=torch.bool))
        best = torch.cat([x.amax(1, keepdim=True) for x in self._ious(gt_boxes, anchors, valid)], 1)
        best = best.amax(1, keepdim=True)
        box = torch.arange(len(gt_boxes), device=anchors.device)[:, None]
        owners, ignored, firsts = [], [], []
        start = 0
        for iou in self._ious(gt_boxes, anchors, valid):
            highest = iou.amax(0)
            # The first of equal ones on every device, which argmax does not promise.
            nearest = torch.where(iou == highest, box, len(gt_boxes)).amin(0)
            positive = highest >= self.positive_iou
            owner = torch.where(positive, nearest, -1)
            is_best = iou == best
            if self.all_best:
                last = torch.where(is_best, box, -1).amax(0)
                owner = torch.where(last >= 0, last, owner)
            else:
                index = torch.arange(start, start + iou.shape[1], device=iou.device)
                firsts.append(torch.where(is_best, index, len(anchors)).amin(1))
            owners.append(owner)
            ignored.append((highest >= self.negative_iou) & ~positive)
            start += iou.shape[1]
        assigned = torch.cat(owners)
        if not self.all_best:
            first = torch.stack(firsts).amin(0)
            last = torch.full_like(assigned, -1).scatter_reduce_(0, first, box[:, 0], reduce="amax")
            assigned = torch.where(last >= 0, last, assigned)
        if valid is not None:
            assigned = torch.where(valid, assigned, -1)
        return SingleMatch(assigned, torch.cat(ignored) & (assigned < 0))

    def _ious(self, gt_boxes: Tensor, anchors: Tensor, valid: Tensor | None) -> Iterator[Tensor]:
        """(M, r) IoU of the boxes with one piece of the anchors after the other.

        It is -1 where an anchor is not valid.
        """
        step = max(1, self.max_pairs // len(gt_boxes))
        for start in range(0, len(anchors), step):
            piece = slice(start, start + step)
            iou = aligned_iou(gt_boxes[:, None], anchors[None, piece])
            yield iou if valid is None else iou.masked_fill_(~valid[piece], -1.0)


def _check_thresholds(negative_iou: float, positive_iou: float) -> None:
    if not 0.0 < negative_iou <= positive_iou <= 1.0:
        raise ValueError(
            "thresholds must be 0 < negative_iou <= positive_iou <= 1, "
            f"got {negative_iou} and {positive_iou}"
        )
