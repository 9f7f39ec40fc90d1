"""Slow, literal versions of the rules that the package computes in bulk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor
from vfnet_yolof.modeling.assigners import Match

Box = Sequence[float]  # xyxy px
INF = float("inf")


@dataclass
class Assignment:
    """What each location learns (-1: background), and how near the nearest decision was.

    A decision whose two sides differ by less than float32 can tell may rightly fall either way.
    """

    assigned: list[int]
    closest_call: float = INF
    candidates: dict[int, list[int]] = field(default_factory=dict)  # by box


def center(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    return overlap / max(area(a) + area(b) - overlap, 1e-6)


def atss(
    anchors: Sequence[Box],
    gt_boxes: Sequence[Box],
    level_sizes: Sequence[int],
    topk: int = 9,
    valid: Sequence[bool] | None = None,
) -> Assignment:
    """Algorithm 1 of the ATSS paper, box by box and level by level."""
    result = Assignment([-1] * len(anchors))
    best = [0.0] * len(anchors)
    for number, gt in enumerate(gt_boxes):
        gt_x, gt_y = center(gt)

        # Lines 3-6: the nearest anchors of every level.
        candidates: list[int] = []
        start = 0
        for size in level_sizes:
            level = [i for i in range(start, start + size) if valid is None or valid[i]]
            distances = []
            for i in level:
                x, y = center(anchors[i])
                distances.append((math.hypot(x - gt_x, y - gt_y), i))
            candidates += [i for _, i in sorted(distances)[:topk]]
            start += size
        result.candidates[number] = candidates
        if not candidates:
            continue

        # Lines 7-10: the threshold.
        ious = [iou(anchors[i], gt) for i in candidates]
        mean = sum(ious) / len(ious)
        variance = sum((x - mean) ** 2 for x in ious) / max(len(ious) - 1, 1)
        threshold = mean + math.sqrt(variance)

        # Lines 11-15, and what the paper adds: a location that two boxes want.
        for i, overlap in zip(candidates, ious, strict=True):
            x, y = center(anchors[i])
            if min(x - gt[0], y - gt[1], gt[2] - x, gt[3] - y) <= 0.01:
                continue
            result.closest_call = min(result.closest_call, abs(overlap - threshold))
            if overlap < threshold:
                continue
            if overlap != best[i]:
                result.closest_call = min(result.closest_call, abs(overlap - best[i]))
            if overlap > best[i]:
                best[i] = overlap
                result.assigned[i] = number
    return result


def fcos(
    points: Sequence[tuple[float, float]],
    gt_boxes: Sequence[Box],
    level_sizes: Sequence[int],
    size_ranges: Sequence[tuple[float, float]],
    strides: Sequence[int],
    center_radius: float | None = None,
    valid: Sequence[bool] | None = None,
) -> list[int]:
    """FCOS, section 3.2 (and its centre sampling), location by location."""
    assigned = []
    start = 0
    for size, (low, high), stride in zip(level_sizes, size_ranges, strides, strict=True):
        for i in range(start, start + size):
            x, y = points[i]
            best, best_area = -1, INF
            for number, gt in enumerate(gt_boxes):
                sides = (x - gt[0], y - gt[1], gt[2] - x, gt[3] - y)
                if min(sides) <= 0 or not low <= max(sides) <= high:
                    continue
                if center_radius is not None:
                    gt_x, gt_y = center(gt)
                    if max(abs(x - gt_x), abs(y - gt_y)) >= center_radius * stride:
                        continue
                if area(gt) < best_area:
                    best, best_area = number, area(gt)
            assigned.append(best if valid is None or valid[i] else -1)
        start += size
    return assigned


@dataclass
class UniformMatch:
    """Pairs (anchor, box) in order, those that are ignored, and anchors that are no negatives."""

    pairs: list[tuple[int, int]]
    ignored_pairs: list[bool]
    ignored_anchors: list[bool]
    closest_call: float = INF


def uniform(
    anchors: Sequence[Box],
    pred_boxes: Sequence[Box],
    gt_boxes: Sequence[Box],
    topk: int,
    min_iou: float,
    max_iou: float,
) -> UniformMatch:
    """Uniform matching (YOLOF, section 4.2), box by box; of equal distances the earlier anchor."""

    def nearest(boxes: Sequence[Box], gt: Box) -> list[int]:
        def numbers(b: Box) -> tuple[float, ...]:
            return (*center(b), b[2] - b[0], b[3] - b[1])

        distances = [
            (sum(abs(x - y) for x, y in zip(numbers(b), numbers(gt), strict=True)), i)
            for i, b in enumerate(boxes)
        ]
        return [i for _, i in sorted(distances)[:topk]]

    by_pred = [nearest(pred_boxes, gt) for gt in gt_boxes]
    by_anchor = [nearest(anchors, gt) for gt in gt_boxes]
    pairs = []
    for rank in range(min(topk, len(anchors))):
        for chosen in (by_pred, by_anchor):
            pairs += [(indices[rank], number) for number, indices in enumerate(chosen)]
    pair_ious = [iou(anchors[i], gt_boxes[number]) for i, number in pairs]
    best = [max((iou(b, gt) for gt in gt_boxes), default=0.0) for b in pred_boxes]
    calls = [abs(x - min_iou) for x in pair_ious if x > 0] + [abs(x - max_iou) for x in best]
    return UniformMatch(
        pairs,
        [x < min_iou for x in pair_ious],
        [x > max_iou for x in best],
        min(calls, default=INF),
    )


def greedy_nms(
    boxes: Sequence[Box],
    scores: Sequence[float],
    classes: Sequence[int],
    threshold: float,
    class_agnostic: bool = False,
) -> list[int]:
    """Indices of the boxes that no better kept one (of their class) covers, best first."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        rivals = (j for j in kept if class_agnostic or classes[j] == classes[i])
        if all(iou(boxes[i], boxes[j]) <= threshold for j in rivals):
            kept.append(i)
    return kept


def candidates(
    logits: Sequence[Sequence[float]], mode: str, topk: int, score_thresh: float
) -> list[tuple[float, int, int]]:
    """(score, location, class) of one level's candidates, by the rule of MMDetection 3 or 2."""
    scores = [[1 / (1 + math.exp(-x)) for x in row] for row in logits]
    if mode == "pair":
        pairs = [(s, i, k) for i, row in enumerate(scores) for k, s in enumerate(row)]
        chosen = sorted(pairs, reverse=True)[:topk]
    else:
        rows = sorted(range(len(scores)), key=lambda i: -max(scores[i]))[:topk]
        chosen = [(s, i, k) for i in rows for k, s in enumerate(scores[i])]
    return [pair for pair in chosen if pair[0] > score_thresh]


def parts(match: Match) -> list[Tensor]:
    """What a match tells, whatever its form."""
    return [match.anchor_idx, match.gt_idx, match.ignored_pairs, match.ignored_anchors]
