"""Drawing detections. Every function takes an image and returns a new one.

That has the same size, or a whole multiple of it where ``scale`` is given: labels do not shrink
with the image, so they would cover the objects of a small one. :func:`.canvas.display_scale` is
the multiple for people to look at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.structures import Instances

from .canvas import Canvas, Color, class_color

# R, G, B of the intermediate results, as in figures 1 and 3 of the VarifocalNet paper.
INITIAL_BOX_COLOR = (255, 40, 40)
STAR_POINT_COLOR = (255, 225, 25)
REFINED_BOX_COLOR = (40, 100, 255)

# R, G, B of the distributions of the left, top, right and bottom side (Generalized Focal Loss,
# figure 3): Paul Tol's "vibrant" colours, which the colour-blind can tell apart, too.
SIDE_COLORS: tuple[Color, ...] = ((238, 119, 51), (51, 187, 238), (238, 51, 119), (0, 153, 136))
_DRAWN_SHARE = 0.05  # of the highest probability: less likely bins at the ends are left out


def draw_instances(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    *,
    score_thresh: float = 0.0,
    line_width: int | None = None,
    scale: int = 1,
) -> np.ndarray:
    """Draw boxes with class names and scores.

    Args:
        image: (H, W, 3) uint8, R, G, B.
        instances: with ``pred_boxes`` in pixels of ``image``, ``scores`` and ``pred_classes``
            (indices into ``class_names``), as models and the predictor return them.
        class_names: by class index.
        score_thresh: detections with a lower score are left out.
        line_width: px; by default it grows with the image.
        scale: of enlargement, a whole number.

    Returns:
        A new (scale * H, scale * W, 3) uint8 array.

    Raises:
        ValueError: another kind of image, or a scale below 1.
        IndexError: a class has no name.
    """
    canvas = Canvas(image, line_width, scale)
    instances = _best_first(instances, score_thresh)
    colors = [class_color(label) for label in instances.pred_classes.tolist()]
    _draw_boxes(canvas, instances.pred_boxes.tensor.numpy(), colors)
    _draw_labels(canvas, instances, class_names, colors)
    return canvas.array()


def draw_ground_truth(
    image: np.ndarray, instances: Instances, class_names: Sequence[str], *, scale: int = 1
) -> np.ndarray:
    """Draw the boxes of a training sample with their class names.

    As :func:`draw_instances`, with the fields ``gt_boxes`` and ``gt_classes``.
    """
    canvas = Canvas(image, scale=scale)
    boxes = instances.gt_boxes.tensor.cpu().numpy()
    classes = instances.gt_classes.tolist()
    colors = [class_color(label) for label in classes]
    _draw_boxes(canvas, boxes, colors)
    canvas.labels(boxes, classes, class_names, colors)
    return canvas.array()


def draw_star(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    *,
    score_thresh: float = 0.0,
    line_width: int | None = None,
    scale: int = 1,
) -> np.ndarray:
    """Draw VFNet's steps: initial box (red), nine star points (yellow), refined box (blue).

    As :func:`draw_instances`, with the fields ``init_boxes`` and ``star_points`` (P, 9, 2) of
    :meth:`Predictor.predict_star` (VarifocalNet, figures 1 and 3).

    Raises:
        ValueError: the fields are missing, or another kind of image.
    """
    _require(instances, ("init_boxes", "star_points"), "Predictor.predict_star adds them")
    canvas = Canvas(image, line_width, scale)
    instances = _best_first(instances, score_thresh)
    refined = [REFINED_BOX_COLOR] * len(instances)
    initial = [INITIAL_BOX_COLOR] * len(instances)
    _draw_boxes(canvas, instances.init_boxes.tensor.numpy(), initial)
    _draw_boxes(canvas, instances.pred_boxes.tensor.numpy(), refined)
    for x, y in instances.star_points.flatten(0, 1).tolist():
        canvas.point(x, y, STAR_POINT_COLOR)
    _draw_labels(canvas, instances, class_names, refined)
    return canvas.array()


def draw_distributions(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    *,
    score_thresh: float = 0.0,
    line_width: int | None = None,
    scale: int = 1,
    curve_height: float | None = None,
) -> np.ndarray:
    """Draw boxes and, at the middle of each side, its predicted distribution.

    As :func:`draw_instances`, with the fields ``side_probabilities`` (P, 4, bins), ``side_points``
    (P, 2) and ``side_intervals`` (P, 4) of :meth:`Predictor.predict_distributions` (Generalized
    Focal Loss, figure 3). A curve runs along the axis on which its side can move, each bin at the
    place in the image that it stands for; all have the same scale of probability. A sharp peak is
    a clear border, a low and broad curve an unclear one. Boxes have their class's colour, curves
    that of their side: left orange, top blue, right magenta, bottom green.

    Args:
        curve_height: px of the image that probability 1 stands for; by default it grows with it.

    Raises:
        ValueError: the fields are missing, or another kind of image.
    """
    _require(
        instances,
        ("side_probabilities", "side_points", "side_intervals"),
        "Predictor.predict_distributions adds them for a GFL whose sides are general distributions",
    )
    canvas = Canvas(image, line_width, scale)
    height = curve_height if curve_height is not None else max(16.0, max(image.shape[:2]) / 6)
    instances = _best_first(instances, score_thresh)
    colors = [class_color(label) for label in instances.pred_classes.tolist()]
    _draw_boxes(canvas, instances.pred_boxes.tensor.numpy(), colors)
    for curves in reversed(_side_curves(instances, height)):
        for color, curve in zip(SIDE_COLORS, curves, strict=True):
            canvas.curve(curve, color)
    _draw_labels(canvas, instances, class_names, colors)
    return canvas.array()


def draw_found(
    image: np.ndarray, instances: Instances, class_names: Sequence[str], *, scale: int = 1
) -> np.ndarray:
    """Draw all that ``instances`` have: star points or distributions, where these are there."""
    if instances.has("star_points"):
        return draw_star(image, instances, class_names, scale=scale)
    if instances.has("side_probabilities"):
        return draw_distributions(image, instances, class_names, scale=scale)
    return draw_instances(image, instances, class_names, scale=scale)


def _require(instances: Instances, fields: Sequence[str], remedy: str) -> None:
    for name in fields:
        if not instances.has(name):
            raise ValueError(f"instances have no {name}; {remedy}")


def _best_first(instances: Instances, score_thresh: float) -> Instances:
    instances = instances.to("cpu")
    instances = instances[instances.scores >= score_thresh]
    return instances[instances.scores.argsort(descending=True, stable=True)]


def _draw_boxes(canvas: Canvas, boxes: np.ndarray, colors: Sequence[Color]) -> None:
    """The first ones, which are the surest, lie on top."""
    for box, color in reversed(list(zip(boxes.tolist(), colors, strict=True))):
        canvas.box(box, color)


def _draw_labels(
    canvas: Canvas, instances: Instances, class_names: Sequence[str], colors: Sequence[Color]
) -> None:
    """Class names and scores."""
    classes = instances.pred_classes.tolist()
    scores = [f" {score:.0%}" for score in instances.scores.tolist()]
    canvas.labels(instances.pred_boxes.tensor.numpy(), classes, class_names, colors, scores)


def _side_curves(instances: Instances, height: float) -> list[list[list[tuple[float, float]]]]:
    """For each box and side a polygon of (x, y): out along its curve, back on its base."""
    probabilities = instances.side_probabilities.numpy()
    points, intervals = instances.side_points.numpy(), instances.side_intervals.numpy()
    boxes = instances.pred_boxes.tensor.numpy()
    curves: list[list[list[tuple[float, float]]]] = [[] for _ in boxes]
    for side, (axis, sign) in enumerate(((0, -1), (1, -1), (0, 1), (1, 1))):
        middle = (boxes[:, 1 - axis] + boxes[:, 3 - axis]) / 2
        for row, p in enumerate(probabilities[:, side]):
            likely = np.flatnonzero(p >= _DRAWN_SHARE * p.max())
            bins = np.arange(max(likely[0] - 1, 0), min(likely[-1] + 2, len(p)))
            along = points[row, axis] + sign * bins * intervals[row, side]
            along = np.concatenate([along[:1], along, along[-1:]])
            across = np.concatenate([[0.0], height * p[bins], [0.0]])
            # Curves of the left and right side rise, those of the others lean to the right.
            x, y = (along, middle[row] - across) if axis == 0 else (middle[row] + across, along)
            curves[row].append(list(zip(x.tolist(), y.tolist(), strict=True)))
    return curves
