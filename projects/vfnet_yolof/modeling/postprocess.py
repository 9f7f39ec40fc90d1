"""From raw predictions to detections: the only top-k in the project."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

from ..layers.nms import NMS, HardNMS
from .boxes import clip_boxes

CANDIDATE_MODES = ("pair", "location")
CLIP_MODES = ("before_nms", "after_nms")


class Detections(NamedTuple):
    """Detections of one image and where in the predictions they came from.

    Attributes:
        instances: ``pred_boxes``, ``scores``, ``pred_classes``, best first.
        level: (D,) int64, pyramid level. location: (D,) int64, row within the level.
    """

    instances: Instances
    level: Tensor
    location: Tensor


class Candidates(NamedTuple):
    """What may become detections; all sizes follow from those of the levels.

    Of one image, or of N with a leading dimension where "..." stands.

    Attributes:
        boxes: (..., L, 4) xyxy pixels that compete. clipped: the same, moved into the image.
        levels: (L,) int64. locations: (..., L) int64 within their levels.
        rows: (P,) int64, which of the L boxes a score is of.
        scores: (..., P) float32. classes: (..., P) int64.
        passes: (..., P) bool, above the threshold.
        has_area: (..., L) bool, of the clipped boxes.
    """

    boxes: Tensor
    clipped: Tensor
    levels: Tensor
    locations: Tensor
    rows: Tensor
    scores: Tensor
    classes: Tensor
    passes: Tensor
    has_area: Tensor


class _LevelCandidates(NamedTuple):
    """Scores of one level that may become detections; names as in :class:`Candidates`."""

    locations: Tensor
    rows: Tensor
    scores: Tensor
    classes: Tensor
    passes: Tensor


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
        score_factors: Sequence[Tensor] | None = None,
    ) -> Detections:
        """Detections of one image.

        Args:
            logits: for each level (R_l, K), before the sigmoid.
            decode: ``decode(level, index)`` gives boxes (P, 4) xyxy in pixels for locations
                ``index`` (P,) of that level; called for candidates only.
            image_size: (H, W) of the image without padding, pixels.
            score_factors: for each level (R_l,) factors in [0, 1] on the scores, e.g. centerness;
                they rank the candidates in the NMS, but do not choose them.
        """
        found = self.candidate_boxes(logits, decode, image_size, score_factors)
        # Up to here all sizes are fixed: on a GPU the host waits for this count and the NMS's.
        chosen = found.passes.nonzero()[:, 0]
        rows, scores, classes = found.rows[chosen], found.scores[chosen], found.classes[chosen]
        keep, kept_scores = self.nms(found.boxes[rows], scores, classes, self.max_detections)
        if self.clip == "after_nms":
            solid = found.has_area[rows[keep]]
            keep, kept_scores = keep[solid], kept_scores[solid]
        rows = rows[keep]
        instances = Instances(
            image_size,
            pred_boxes=Boxes(found.clipped[rows]),
            scores=kept_scores,
            pred_classes=classes[keep],
        )
        return Detections(instances, found.levels[rows], found.locations[rows])

    def candidate_boxes(
        self,
        logits: Sequence[Tensor],
        decode: Callable[[int, Tensor], Tensor],
        image_size: tuple[int, int],
        score_factors: Sequence[Tensor] | None = None,
    ) -> Candidates:
        """What goes into the NMS once only those that pass are left.

        Arguments as of a call, or of N images of one size at once: logits (N, R_l, K), factors
        (N, R_l), and ``decode`` from indices (N, P) to boxes (N, P, 4).
        """
        found = [self._level_candidates(x) for x in logits]
        boxes = torch.cat([decode(level, x.locations) for level, x in enumerate(found)], dim=-2)
        counts = [x.locations.shape[-1] for x in found]
        levels = torch.cat([torch.full((n,), i, device=boxes.device) for i, n in enumerate(counts)])
        starts = accumulate(counts[:-1], initial=0)
        rows = torch.cat([x.rows + start for x, start in zip(found, starts, strict=True)])
        locations, scores, classes, passes = (
            torch.cat([getattr(x, name) for x in found], dim=-1)
            for name in ("locations", "scores", "classes", "passes")
        )
        if score_factors is not None:
            factors = [f.gather(-1, x.locations) for f, x in zip(score_factors, found, strict=True)]
            scores = scores * torch.cat(factors, dim=-1)[..., rows]
        clipped = clip_boxes(boxes, image_size)
        has_area = (clipped[..., 2:] > clipped[..., :2]).all(-1)
        if self.clip == "before_nms":
            boxes = clipped
            passes = passes & has_area[..., rows]
        return Candidates(
            boxes, clipped, levels, locations, rows, scores, classes, passes, has_area
        )

    def _level_candidates(self, logits: Tensor) -> _LevelCandidates:
        """The best of one level's logits (..., R, K)."""
        if self.candidates == "pair":
            return self._best_pairs(logits)
        return self._best_locations(logits)

    def _count(self, available: int) -> int:
        """How many of a level's logits are kept."""
        return min(self.topk_candidates, available)

    # Shapes instead of `len`: sizes are symbols in exported graphs.

    def _best_pairs(self, logits: Tensor) -> _LevelCandidates:
        num_locations, num_classes = logits.shape[-2:]
        count = self._count(num_locations * num_classes)
        top, flat = logits.flatten(-2).topk(count)
        scores = top.float().sigmoid()
        return _LevelCandidates(
            locations=flat.div(num_classes, rounding_mode="floor"),
            rows=torch.arange(flat.shape[-1], device=flat.device),
            scores=scores,
            classes=flat % num_classes,
            passes=scores > self.score_thresh,
        )

    def _best_locations(self, logits: Tensor) -> _LevelCandidates:
        num_locations, num_classes = logits.shape[-2:]
        count = self._count(num_locations)
        _, best = logits.amax(-1).topk(count)
        index = best[..., None].expand(*best.shape, num_classes)
        scores = logits.gather(-2, index).float().sigmoid()
        rows, classes = (
            torch.arange(n, device=best.device).view(shape).expand(count, num_classes)
            for n, shape in ((count, (-1, 1)), (num_classes, (1, -1)))
        )
        return _LevelCandidates(
            locations=best,
            rows=rows.flatten(),
            scores=scores.flatten(-2),
            classes=classes.expand_as(scores).flatten(-2),
            passes=(scores > self.score_thresh).flatten(-2),
        )


class FixedCandidates(PostProcessor):
    """Of images of any size as many candidates as there may be at most, so that a graph can tell.

    Where a level has too few locations, candidates with the score 0 fill up, which do not pass.
    """

    @classmethod
    def like(cls, other: PostProcessor) -> "FixedCandidates":
        """With the same settings."""
        made = cls.__new__(cls)
        made.__dict__.update(other.__dict__)
        return made

    def _count(self, available: int) -> int:
        return self.topk_candidates

    def _level_candidates(self, logits: Tensor) -> _LevelCandidates:
        num_locations, num_classes = logits.shape[-2:]
        missing = self.topk_candidates
        if self.candidates == "pair":
            missing = math.ceil(missing / num_classes)
        room = F.pad(logits, (0, 0, 0, missing), value=-math.inf)
        found = super()._level_candidates(room)
        return found._replace(locations=found.locations.clamp(max=num_locations - 1))
