"""Figure 2a of GFL: what a detector says of the quality of boxes where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Boxes, pairwise_iou
from matplotlib.axes import Axes
from torch import Tensor
from torchvision.ops import nms

from ...config.options import ConfigError
from ...drawing.charts import new_figure
from ..positives import Seen, by_level, seen_images
from ..subject import Subject
from . import Drawn, Options
from .images import name_of, require_count, rgb_of, rounded, show

_AWAY = 0.1  # IoU with every object below which a predicted box is background
_CANDIDATES = 200  # of an image, of which those of high quality are told apart by NMS
_APART = 0.3  # IoU above which two of them show the same patch
_PATCH = 2.0  # side of a patch in sides of the predicted box


class Patch(NamedTuple):
    """Background of high predicted quality.

    Attributes:
        inputs: of the image. box: (4,) predicted there, xyxy px of the network's input.
        quality, score: in [0, 1]. iou: the largest with an object of the image.
    """

    inputs: dict[str, Any]
    box: Tensor
    quality: float
    score: float
    iou: float


def background(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figure 2a of GFL: patches of background whose predicted quality is highest.

    They are of locations that learn no object, and whose predicted box has an IoU below 0.1 with
    every object. A separate quality branch, which is trained with positives alone, may say
    anything there; in a joint representation the class score is the quality, and learns 0.

    The numbers have image, box (xyxy px of the network's input), quality, class score and IoU of
    each patch.

    Raises:
        ConfigError: there is no such location, or ``--count`` is below 1.
    """
    (subject,) = subjects
    require_count(options)
    best: list[Patch] = []
    images, separate = 0, False
    for seen in seen_images(subject):
        separate = seen.outputs.factors is not None
        best = [*best, *background_patches(seen, options.count)]
        best = sorted(best, key=lambda x: -x.quality)[: options.count]
        images += 1
    if not best:
        raise ConfigError(
            f"{subject.name}: all boxes that it predicts in {images} images touch an object: "
            "take images with more background."
        )
    columns = min(4, len(best))
    figure = new_figure(2.3 * columns, 2.6 * -(-len(best) // columns))
    axes = figure.subplots(-(-len(best) // columns), columns, squeeze=False).flatten()
    for axis in axes[len(best) :]:
        axis.set_axis_off()
    for axis, patch in zip(axes, best, strict=False):
        title = f"score {patch.score:.2f}"  # a joint representation's is the quality
        if separate:
            title = f"quality {patch.quality:.2f}\nclass {title}"
        _show_patch(axis, rgb_of(subject, patch.inputs), patch.box.tolist(), title)
    told = [
        {
            "image": name_of(patch.inputs),
            "box": rounded(patch.box),
            **{k: round(v, 6) for k, v in zip(patch._fields[2:], patch[2:], strict=True)},
        }
        for patch in best
    ]
    return Drawn(
        figure,
        {"images": images, "patches": told},
        f"background with the highest predicted quality in {images} images: "
        f"{best[0].quality:.2f}, "
        + (f"where the class score is {best[0].score:.2f}." if separate else "its class score."),
    )


def _show_patch(axes: Axes, image: np.ndarray, box: list[float], title: str) -> None:
    """The image around a box, which is dashed."""
    x0, y0, x1, y1 = box
    half = _PATCH / 2 * max(x1 - x0, y1 - y0, 8.0)
    height, width = image.shape[:2]
    left, right = (int(np.clip((x0 + x1) / 2 + side, 0, width)) for side in (-half, half))
    top, bottom = (int(np.clip((y0 + y1) / 2 + side, 0, height)) for side in (-half, half))
    crop = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    show(axes, crop, title)
    x, y = np.array([x0, x1, x1, x0, x0]) - left, np.array([y0, y0, y1, y1, y0]) - top
    axes.plot(x, y, color="white", linewidth=3)
    axes.plot(x, y, "k--", linewidth=1.2)
    axes.set_xlim(-0.5, crop.shape[1] - 0.5)
    axes.set_ylim(crop.shape[0] - 0.5, -0.5)


@torch.no_grad()
def background_patches(seen: Seen, count: int) -> list[Patch]:
    """At most ``count`` patches of one image, apart from each other, highest quality first."""
    outputs = seen.outputs
    score = torch.cat([x.float().sigmoid().amax(1) for x in outputs.logits])
    quality = score if outputs.factors is None else torch.cat(outputs.factors).float()
    negative = torch.ones_like(quality, dtype=torch.bool)
    negative[seen.positives.rows] = False
    rows = negative.nonzero()[:, 0]
    rows = rows[quality[rows].topk(min(_CANDIDATES, len(rows))).indices]
    boxes = quality.new_zeros(len(rows), 4)
    for level, (here, index) in enumerate(by_level(outputs, rows)):
        boxes[here] = outputs.decode(level, index).float()
    truth = seen.inputs["instances"].gt_boxes.tensor.float()
    none = boxes.new_zeros(len(boxes))
    iou = pairwise_iou(Boxes(boxes), Boxes(truth)).amax(1) if len(truth) else none
    height, width = outputs.image_size
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (center >= 0).all(1) & (center < center.new_tensor([width, height])).all(1)
    away = ((iou < _AWAY) & inside).nonzero()[:, 0]
    kept = away[nms(boxes[away], quality[rows[away]], _APART)[:count]]
    values = torch.stack([quality[rows[kept]], score[rows[kept]], iou[kept]], dim=1).tolist()
    return [Patch(seen.inputs, x, *y) for x, y in zip(boxes[kept].cpu(), values, strict=True)]
