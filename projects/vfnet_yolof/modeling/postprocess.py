"""From raw predictions to detections: the only top-k in the project."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..layers.nms import NMS, HardNMS
from .box_coders import clip_boxes

CANDIDATE_MODES = ("pair", "location")
CLIP_MODES = ("before_nms", "after_nms")


class Detections(NamedTuple):
    """Detections of one image and where in the predictions they came from.

    Attributes:
        instances: ``pred_boxes``, ``scores``, ``pred_classes``, best first.
        level: (D,) int64, pyramid level. index: (D,) int64, location within the level.
    """

    instances: Instances
    level: Tensor
    index: Tensor


class PostProcessor:
    """Choose candidates on each level, decode them, clip and suppress duplicates.

    Args:
        score_thresh: detections must score above this.
        topk_candidates: candidates kept per level.
        nms: duplicates' removal, :class:`HardNMS` (0.6 by default) or :class:`SoftNMS`.
        max_detections: per image.
        candidates: ``"pair"`` keeps the best (location, class) pairs, as MMDetection 3 and
            Detectron2 do; ``"location"`` keeps the locations with the best class score and all
            their classes, as MMDetection 2 did.
    """

    def __init__(
        self,
        *,
        score_thresh: float = 0.05,
        topk_candidates: int = 1000,
        nms: NMS | None = None,
        max_detections: int = 100,
        candidates: str = "pair",
        clip: str = "before_nms",
    ) -> None:
        if candidates not in CANDIDATE_MODES:
            raise ValueError(f"candidates must be one of {CANDIDATE_MODES}, got {candidates!r}")
        if clip not in CLIP_MODES:
            raise ValueError(f"clip must be one of {CLIP_MODES}, got {clip!r}")
        if not 0.0 <= score_thresh < 1.0:
            raise ValueError(f"score_thresh must lie in [0, 1), got {score_thresh}")
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.nms = nms if nms is not None else HardNMS(0.6)
        self.max_detections = max_detections
        self.candidates = candidates
        self.clip = clip

    def __call__(
        self,
        logits: Sequence[Tensor],
        decode: Callable[[int, Tensor], Tensor],
        image_size: tuple[int, int],
        quality: Sequence[Tensor] | None = None,
    ) -> Detections:
        """Detections of one image.

        Args:
            logits: for each level (R_l, K), before the sigmoid.
            decode: ``decode(level, index)`` gives boxes (P, 4) xyxy in pixels for locations
                ``index`` (P,) of that level; called for candidates only.
            image_size: (H, W) of the image without padding, pixels.
            quality: for each level (R_l,) factors in [0, 1] on the scores, e.g. centerness;
                they rank the candidates in the NMS, but do not choose them.
        """
        parts = [
            self._level_candidates(level, x, decode, None if quality is None else quality[level])
            for level, x in enumerate(logits)
        ]
        boxes, scores, classes, levels, index = (torch.cat(x) for x in zip(*parts, strict=True))
        clipped = clip_boxes(boxes, image_size)
        has_area = (clipped[:, 2:] > clipped[:, :2]).all(-1)
        if self.clip == "before_nms":
            solid = has_area.nonzero()[:, 0]
            keep, kept_scores = self.nms(
                clipped[solid], scores[solid], classes[solid], self.max_detections
            )
            keep = solid[keep]
        else:
            keep, kept_scores = self.nms(boxes, scores, classes, self.max_detections)
            solid = has_area[keep]
            keep, kept_scores = keep[solid], kept_scores[solid]
        instances = Instances(
            image_size,
            pred_boxes=Boxes(clipped[keep]),
            scores=kept_scores,
            pred_classes=classes[keep],
        )
        return Detections(instances, levels[keep], index[keep])

    def _level_candidates(
        self,
        level: int,
        logits: Tensor,
        decode: Callable[[int, Tensor], Tensor],
        quality: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Boxes, scores, classes, level and location of one level's candidates."""
        if self.candidates == "pair":
            scores, index, classes = self._best_pairs(logits)
        else:
            scores, index, classes = self._best_locations(logits)
        if quality is not None:
            scores = scores * quality[index]
        boxes = decode(level, index)
        return boxes, scores, classes, torch.full_like(index, level), index

    def _best_pairs(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        num_classes = logits.shape[1]
        top, flat = logits.flatten().topk(min(self.topk_candidates, logits.numel()))
        scores = top.float().sigmoid()
        keep = scores > self.score_thresh
        scores, flat = scores[keep], flat[keep]
        return scores, flat.div(num_classes, rounding_mode="floor"), flat % num_classes

    def _best_locations(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, best = logits.amax(1).topk(min(self.topk_candidates, len(logits)))
        scores = logits[best].float().sigmoid()
        row, classes = (scores > self.score_thresh).nonzero(as_tuple=True)
        return scores[row, classes], best[row], classes
