"""Whether an exported file gives what the detector gives, at several sizes and batches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..runtime.candidates import Found, detections
from ..runtime.detector import Graph, load_program, open_graph, run_program
from ..runtime.metadata import Metadata

SIZES = ((256, 320), (203, 331), (50, 90))  # px; none is the example's
BATCHES = (1, 3)
MAX_BOX_ERROR = 0.01  # px
MAX_RELATIVE_ERROR = 1e-4  # of the longer side, which is added where weights are random
MAX_SCORE_ERROR = 1e-4
MAX_UNMATCHED = 0.02  # share: two overlapping boxes of nearly equal scores may change places


class CheckFailed(ValueError):
    """The exported file is wrong; the message says where."""


class Check(NamedTuple):
    """What was measured at one size.

    Attributes:
        size: (H, W) px. batch: number of images. detections: of the detector, in all of them.
        box_error: largest difference of a coordinate, px. score_error: of a score.
        unmatched: detections of one that the other lacks. allowed: of ``box_error``, px.
    """

    size: tuple[int, int]
    batch: int
    detections: int
    box_error: float
    score_error: float
    unmatched: int
    allowed: float = MAX_BOX_ERROR

    @property
    def good(self) -> bool:
        """Whether this is rounding, which may also decide between neighbours in the NMS."""
        return (
            self.unmatched <= MAX_UNMATCHED * self.detections
            and self.box_error <= self.allowed
            and self.score_error <= MAX_SCORE_ERROR
        )

    def __str__(self) -> str:
        text = (
            f"batch {self.batch}, {self.size[0]}x{self.size[1]} px: {self.detections} compared, "
            f"boxes differ by {self.box_error:.2g} px at most "
            f"({self.allowed:.2g} allowed), scores by {self.score_error:.2g}"
        )
        return text if not self.unmatched else f"{text}, {self.unmatched} on one side only"


def checked(
    model: Any, path: Path, trial: Path, metadata: Metadata, *, trained: bool = True
) -> list[Check]:
    """Compare a file with the model at several sizes; returns what was measured.

    Noise makes few detections or none, and so do random weights. So all but one comparison are made
    by ``trial``, the same file but for a score threshold of 0. (Of a ``.pt2`` there is none: it is
    read once, and its program gets that threshold.) Candidates of a file without NMS become
    detections by the file's metadata, as its users' do.

    Args:
        trained: boxes may differ by ``MAX_BOX_ERROR``; those of random weights, which may be far
            larger than the image, by ``MAX_RELATIVE_ERROR`` of its longer side more.

    Raises:
        CheckFailed: they differ by more than rounding.
    """
    lowered = copy.copy(model)
    lowered.postprocessor = copy.copy(model.postprocessor)
    lowered.postprocessor.score_thresh = 0.0
    allowed = None if not trained else MAX_BOX_ERROR
    sizes: Sequence[Sequence[int]] = SIZES
    if metadata.least_side is not None:  # the last size is the smallest that it takes
        side = metadata.least_side
        sizes = [(max(h, side), max(w, side)) for h, w in SIZES[:2]] + [(side, side + 40)]
    if metadata.static_size is not None:
        sizes = [metadata.static_size]
    generator = torch.Generator().manual_seed(0)
    file, run = _graphs(path, trial)
    checks = [
        _checked(run, lowered, noise((batch, 3, *size), generator), metadata, allowed)
        for size in sizes
        for batch in BATCHES
    ]
    if not any(check.detections for check in checks):
        raise CheckFailed(
            "The detector finds nothing in the images of the check, even at a score of 0, so that "
            "the file cannot be compared with it, and is not kept."
        )
    # The file itself.
    _checked(file, model, noise((1, 3, *sizes[0]), generator), metadata, allowed)
    return checks


def _graphs(path: Path, trial: Path) -> tuple[Graph, Graph]:
    """What runs a file, and the same at a score threshold of 0."""
    if path.suffix != ".pt2":
        return open_graph(path)[0], open_graph(trial)[0]
    module, _ = load_program(path)  # which takes long, so once
    own = float(module.score_thresh)

    def run(threshold: float, images: np.ndarray) -> list[np.ndarray]:
        module.score_thresh.fill_(threshold)
        return run_program(module, images)

    return partial(run, own), partial(run, 0.0)


def _checked(
    run: Graph, model: Any, images: Tensor, metadata: Metadata, allowed: float | None
) -> Check:
    size = (images.shape[2], images.shape[3])
    try:
        outputs = run(images.numpy())
    except Exception as error:  # each runtime has its own types
        reason = " ".join(str(error).split())[:300]
        raise CheckFailed(
            f"The exported file fails at batch {len(images)}, {size[0]}x{size[1]} px, and is not "
            f"kept: {reason}"
        ) from error
    if metadata.nms == "inside":
        found = [Found(*(x[i, :n] for x in outputs[:3])) for i, n in enumerate(outputs[3])]
    else:
        pairs = zip(*outputs, strict=True)
        found = [detections(boxes, scores, size, metadata) for boxes, scores in pairs]
    if allowed is None:
        allowed = MAX_BOX_ERROR + MAX_RELATIVE_ERROR * max(size)
    lowest = float(model.postprocessor.score_thresh)
    check = _compared(size, _expected(model, images), found, metadata.max_detections, lowest)
    check = check._replace(allowed=allowed)
    if not check.good:
        raise CheckFailed(f"The exported file differs from the detector, and is not kept: {check}")
    return check


@torch.no_grad()
def _expected(model: Any, images: Tensor) -> list[Found]:
    outputs = [x["instances"] for x in model([{"image": image} for image in images])]
    return [
        Found(x.pred_boxes.tensor.numpy(), x.scores.numpy(), x.pred_classes.numpy())
        for x in outputs
    ]


def _compared(
    size: tuple[int, int], expected: list[Found], found: list[Found], limit: int, lowest: float
) -> Check:
    """Differences of detections, of which a limit or a score threshold may cut off the last."""
    box_error = score_error = 0.0
    unmatched = 0
    for theirs, ours in zip(expected, found, strict=True):
        pairs, alone = paired(theirs, ours, limit, lowest)
        unmatched += alone
        for a, b in pairs:
            box_error = max(box_error, float(np.abs(theirs.boxes[a] - ours.boxes[b]).max()))
            score_error = max(score_error, float(abs(theirs.scores[a] - ours.scores[b])))
    total = sum(len(x.scores) for x in expected)
    return Check(size, len(expected), total, box_error, score_error, unmatched)


def noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Images with coarse and fine structure, whole numbers from 0 to 255."""
    coarse = torch.rand(shape[0], 3, 6, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear")
    fine = torch.rand(shape, generator=generator)
    return ((0.7 * smooth + 0.3 * fine) * 255).round()


def paired(
    theirs: Found, ours: Found, limit: int, lowest: float
) -> tuple[list[tuple[int, int]], int]:
    """Detections of the same class that are nearest to each other, and how many have no partner.

    Equal scores may come in another order, and the last of those that a limit cuts off may be
    another of (nearly) the same score, as may be those at the threshold: these are not counted.

    Args:
        limit: so many detections there are at most. lowest: all scores are above it.
    """
    pairs = []
    left = list(range(len(ours.scores)))
    alone = []
    for a in range(len(theirs.scores)):
        fitting = [
            b
            for b in left
            if ours.classes[b] == theirs.classes[a]
            and abs(ours.scores[b] - theirs.scores[a]) <= MAX_SCORE_ERROR
        ]
        gaps = [float(np.abs(ours.boxes[b] - theirs.boxes[a]).max()) for b in fitting]
        if gaps and min(gaps) <= 1.0:
            b = fitting[int(np.argmin(gaps))]
            left.remove(b)
            pairs.append((a, b))
        else:
            alone.append(float(theirs.scores[a]))
    alone += [float(ours.scores[b]) for b in left]
    if max(len(theirs.scores), len(ours.scores)) >= limit:
        lowest = float(min(theirs.scores.min(initial=1.0), ours.scores.min(initial=1.0)))
    return pairs, sum(score > lowest + MAX_SCORE_ERROR for score in alone)
