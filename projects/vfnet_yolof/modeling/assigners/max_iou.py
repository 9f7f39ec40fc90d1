"""Matching by thresholds of the IoU (RetinaNet, section 4; called Max-IoU in YOLOF's paper)."""

from collections.abc import Iterator, Sequence

import torch
from detectron2.modeling.matcher import Matcher
from torch import Tensor
from torchvision.ops import box_iou

from .match import Match


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
        if not 0.0 < negative_iou <= positive_iou <= 1.0:
            raise ValueError(
                "thresholds must be 0 < negative_iou <= positive_iou <= 1, "
                f"got {negative_iou} and {positive_iou}"
            )
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
        pred_boxes: Tensor | None = None,
        pred_logits: Tensor | None = None,
        gt_classes: Tensor | None = None,
        level_sizes: Sequence[int] | None = None,
    ) -> Match:
        """Match the boxes of one image.

        Args:
            anchors: (R, 4) xyxy pixels. gt_boxes: (M, 4).
            pred_boxes, pred_logits, gt_classes, level_sizes: not used; all assigners are called
                alike.

        Returns:
            At most one pair for each anchor, in the anchors' order.
        """
        anchors, gt_boxes = anchors.float(), gt_boxes.float()
        assigned = torch.full_like(anchors[:, 0], -1, dtype=torch.int64)
        if len(gt_boxes) == 0 or len(anchors) == 0:
            return Match.from_assigned(assigned)
        # An anchor needs all boxes and the low-quality rule needs all anchors: pieces of anchors
        # are matched with the best IoU over all of them as one more column.
        best = gt_boxes.new_zeros(len(gt_boxes))
        for piece in self._pieces(anchors, len(gt_boxes)):
            best = torch.maximum(best, box_iou(gt_boxes, piece).amax(1))
        best = torch.where(best > 0, best, 1.0)[:, None]
        found, labels = [], []
        for piece in self._pieces(anchors, len(gt_boxes)):
            idx, label = self.matcher(torch.cat([box_iou(gt_boxes, piece), best], dim=1))
            found.append(idx[:-1])
            labels.append(label[:-1])
        label = torch.cat(labels)
        assigned = torch.where(label == 1, torch.cat(found), assigned)
        return Match.from_assigned(assigned, label == -1)

    def _pieces(self, anchors: Tensor, num_boxes: int) -> Iterator[Tensor]:
        yield from anchors.split(max(1, self.max_pairs // num_boxes))
