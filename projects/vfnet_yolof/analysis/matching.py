"""How many anchors each object learns from, by its size (YOLOF, figure 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..modeling.assigners import Assigner, ATSSAssigner, Match, MaxIoUAssigner, UniformAssigner
from ..modeling.meta_arch import AnchorDetector

COCO_AREAS = (32.0**2, 96.0**2)  # between small and medium, medium and large objects; px^2


class SizeCounts(NamedTuple):
    """One matching rule's positives in each class of sizes, smallest first.

    Attributes:
        boxes: (B,) int64 objects.
        positives: (B,) int64 pairs of an object and a different anchor.
        kept: (B,) int64, those that the rule does not ignore again (0.15 in YOLOF).
    """

    boxes: Tensor
    positives: Tensor
    kept: Tensor


def compared_matchers() -> dict[str, Assigner]:
    """The four rules of figure 6 by name, as the paper has them."""
    return {
        "Max-IoU": MaxIoUAssigner(),
        "ATSS": ATSSAssigner(topk=15),
        "Top-1": UniformAssigner(topk=1),
        "Uniform": UniformAssigner(topk=4),
    }


def count_positives(match: Match, areas: Tensor, edges: Sequence[float]) -> SizeCounts:
    """Count one image's positives by the size of their objects.

    Args:
        match: what a rule chose. An anchor that it chose twice for an object counts once.
        areas: (M,) of the objects, px^2. edges: between the classes of sizes, ascending; an
            object on an edge belongs to the larger class.
    """
    size = torch.bucketize(areas, areas.new_tensor(list(edges)), right=True)
    number = len(edges) + 1
    num_anchors = max(1, len(match.ignored_anchors))
    # The second column tells ignored pairs apart; a pair that comes twice has the same twice.
    pairs = torch.stack(
        [match.gt_idx * num_anchors + match.anchor_idx, match.ignored_pairs.long()], dim=1
    ).unique(dim=0)
    pair_size = size[pairs[:, 0] // num_anchors]
    return SizeCounts(
        torch.bincount(size, minlength=number),
        torch.bincount(pair_size, minlength=number),
        torch.bincount(pair_size[pairs[:, 1] == 0], minlength=number),
    )


@torch.no_grad()
def matching_statistics(
    model: AnchorDetector,
    batches: Iterable[Sequence[dict[str, Any]]],
    matchers: Mapping[str, Assigner],
    edges: Sequence[float] = COCO_AREAS,
) -> dict[str, SizeCounts]:
    """Positives of several matching rules with the same predictions.

    The model predicts as in training, with the statistics of each batch in its batch norms (whose
    running ones change by that).

    Args:
        model: its anchors and predictions are matched, its own assigner is not used.
        batches: of Detectron2's input dicts with ``instances``; ``height`` and ``width`` are those
            of the image file, in whose pixels areas count.
        matchers: rules by name, see :func:`compared_matchers`.
        edges: see :func:`count_positives`.

    Returns:
        the sums over all images, by the rules' names.
    """
    model.train()
    counts: dict[str, list[SizeCounts]] = {name: [] for name in matchers}
    for batch in batches:
        instances = [x["instances"].to(model.device) for x in batch]
        areas = [_file_areas(x).to(model.device) for x in batch]
        _, features, predictions = model.raw_predictions(batch)
        anchors = torch.cat([x.tensor for x in model.anchor_generator(features)])
        for name, matcher in matchers.items():
            matches = model.match(anchors, predictions, instances, matcher)
            for match, area in zip(matches, areas, strict=True):
                counts[name].append(count_positives(match, area, edges))
    return {
        name: SizeCounts(*(torch.stack(x).sum(0).cpu() for x in zip(*found, strict=True)))
        for name, found in counts.items()
    }


def _file_areas(record: dict[str, Any]) -> Tensor:
    """(M,) px^2 in the image file."""
    height, width = record["instances"].image_size
    scale = record["height"] * record["width"] / (height * width)
    return record["instances"].gt_boxes.area() * scale
