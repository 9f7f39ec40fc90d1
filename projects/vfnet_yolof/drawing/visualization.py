"""Drawing detections. Every function takes an image and returns a new one of the same size."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from detectron2.structures import Instances
from PIL import Image, ImageDraw

from .fonts import fonts_for, sized

# R, G, B of the intermediate results, as in figures 1 and 3 of the VarifocalNet paper.
INITIAL_BOX_COLOR = (255, 40, 40)
STAR_POINT_COLOR = (255, 225, 25)
REFINED_BOX_COLOR = (40, 100, 255)

# A predicted box and the distributions of its sides (Generalized Focal Loss, figure 3).
DISTRIBUTION_BOX_COLOR = (40, 220, 60)
DISTRIBUTION_COLOR = (255, 130, 0)
_DRAWN_SHARE = 0.05  # of the highest probability: less likely bins at the ends are left out

Color = tuple[int, int, int]


def class_color(index: int) -> Color:
    """(R, G, B) of class ``index``: always the same, and far from its neighbours' colours."""
    # Steps of the golden ratio around the colour circle never come back to the same place.
    hue = (index * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0 - 0.25 * (index % 3) / 2)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_instances(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    *,
    score_thresh: float = 0.0,
    line_width: int | None = None,
) -> np.ndarray:
    """Draw boxes with class names and scores.

    Args:
        image: (H, W, 3) uint8, R, G, B.
        instances: with ``pred_boxes`` in pixels of ``image``, ``scores`` and ``pred_classes``
            (indices into ``class_names``), as models and the predictor return them.
        class_names: by class index.
        score_thresh: detections with a lower score are left out.
        line_width: px; by default it grows with the image.

    Returns:
        A new (H, W, 3) uint8 array.

    Raises:
        ValueError: another kind of image.
        IndexError: a class has no name.
    """
    canvas = _Canvas(image, line_width)
    instances = _best_last(instances, score_thresh)
    classes = instances.pred_classes.tolist()
    boxes = instances.pred_boxes.tensor.tolist()
    for box, label in zip(boxes, classes, strict=True):
        canvas.box(box, class_color(label))
    canvas.labels(instances, class_names, [class_color(label) for label in classes])
    return canvas.array()


def draw_ground_truth(
    image: np.ndarray, instances: Instances, class_names: Sequence[str]
) -> np.ndarray:
    """Draw the boxes of a training sample with their class names.

    As :func:`draw_instances`, with the fields ``gt_boxes`` and ``gt_classes``.
    """
    canvas = _Canvas(image, None)
    rows = list(zip(instances.gt_boxes.tensor.tolist(), instances.gt_classes.tolist(), strict=True))
    for box, label in rows:
        canvas.box(box, class_color(label))
    for box, label in rows:
        canvas.label(box, class_names, label, class_color(label))
    return canvas.array()


def draw_star(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    *,
    score_thresh: float = 0.0,
    line_width: int | None = None,
) -> np.ndarray:
    """Draw VFNet's steps: initial box (red), nine star points (yellow), refined box (blue).

    As :func:`draw_instances`, with the fields ``init_boxes`` and ``star_points`` (P, 9, 2) of
    :meth:`Predictor.predict_star` (VarifocalNet, figures 1 and 3).

    Raises:
        ValueError: the fields are missing, or another kind of image.
    """
    _require(instances, ("init_boxes", "star_points"), "Predictor.predict_star adds them")
    canvas = _Canvas(image, line_width)
    instances = _best_last(instances, score_thresh)
    for box in instances.init_boxes.tensor.tolist():
        canvas.box(box, INITIAL_BOX_COLOR)
    for box in instances.pred_boxes.tensor.tolist():
        canvas.box(box, REFINED_BOX_COLOR)
    for x, y in instances.star_points.flatten(0, 1).tolist():
        canvas.point(x, y, STAR_POINT_COLOR)
    canvas.labels(instances, class_names, [REFINED_BOX_COLOR] * len(instances))
    return canvas.array()


def draw_distributions(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str],
    *,
    score_thresh: float = 0.0,
    line_width: int | None = None,
    curve_height: float | None = None,
) -> np.ndarray:
    """Draw boxes (green) and, at the middle of each side, its predicted distribution (orange).

    As :func:`draw_instances`, with the fields ``side_probabilities`` (P, 4, bins), ``side_points``
    (P, 2) and ``side_intervals`` (P, 4) of :meth:`Predictor.predict_distributions` (Generalized
    Focal Loss, figure 3). A curve runs along the axis on which its side can move, each bin at the
    place in the image that it stands for; all have the same scale of probability. A sharp peak is
    a clear border, a low and broad curve an unclear one.

    Args:
        curve_height: px that probability 1 stands for; by default it grows with the image.

    Raises:
        ValueError: the fields are missing, or another kind of image.
    """
    _require(
        instances,
        ("side_probabilities", "side_points", "side_intervals"),
        "Predictor.predict_distributions adds them for a GFL whose sides are general distributions",
    )
    canvas = _Canvas(image, line_width)
    height = curve_height if curve_height is not None else max(16.0, max(image.shape[:2]) / 6)
    instances = _best_last(instances, score_thresh)
    for box in instances.pred_boxes.tensor.tolist():
        canvas.box(box, DISTRIBUTION_BOX_COLOR)
    for curve in _side_curves(instances, height):
        canvas.curve(curve, DISTRIBUTION_COLOR)
    canvas.labels(instances, class_names, [DISTRIBUTION_BOX_COLOR] * len(instances))
    return canvas.array()


def _require(instances: Instances, fields: Sequence[str], remedy: str) -> None:
    for name in fields:
        if not instances.has(name):
            raise ValueError(f"instances have no {name}; {remedy}")


def _best_last(instances: Instances, score_thresh: float) -> Instances:
    """Surer detections are drawn over less sure ones."""
    instances = instances.to("cpu")
    instances = instances[instances.scores >= score_thresh]
    return instances[instances.scores.argsort(stable=True)]


def _side_curves(instances: Instances, height: float) -> list[list[tuple[float, float]]]:
    """A polygon of (x, y) for each side of each box: out along its curve, back on its base."""
    probabilities = instances.side_probabilities.numpy()
    points, intervals = instances.side_points.numpy(), instances.side_intervals.numpy()
    boxes = instances.pred_boxes.tensor.numpy()
    curves = []
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
            curves.append(list(zip(x.tolist(), y.tolist(), strict=True)))
    return curves


class _Canvas:
    def __init__(self, image: np.ndarray, line_width: int | None) -> None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image must be (H, W, 3) uint8, got {image.dtype} of shape {image.shape}"
            )
        self.image = Image.fromarray(np.ascontiguousarray(image)).copy()
        self.draw = ImageDraw.Draw(self.image)
        longest = max(self.image.size)
        self.width = line_width if line_width is not None else max(1, round(longest / 400))
        self.font_size = max(10, round(longest / 60))

    def box(self, box: Sequence[float], color: Color) -> None:
        x0, y0, x1, y1 = box
        self.draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=color, width=self.width)

    def point(self, x: float, y: float, color: Color) -> None:
        radius = self.width + 0.5
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), color, (0, 0, 0))

    def curve(self, points: Sequence[tuple[float, float]], color: Color) -> None:
        """A polygon that lets the image shine through, with a solid line around it."""
        ImageDraw.Draw(self.image, "RGBA").polygon(points, fill=(*color, 120))
        self.draw.line([*points, points[0]], fill=color, width=self.width)

    def labels(
        self, instances: Instances, class_names: Sequence[str], colors: Sequence[Color]
    ) -> None:
        """Class names and scores; drawn after everything else, so that no line crosses them."""
        rows = zip(
            instances.pred_boxes.tensor.tolist(),
            instances.pred_classes.tolist(),
            instances.scores.tolist(),
            colors,
            strict=True,
        )
        for box, label, score, color in rows:
            self.label(box, class_names, label, color, f" {score:.0%}")

    def label(
        self,
        box: Sequence[float],
        class_names: Sequence[str],
        index: int,
        color: Color,
        suffix: str = "",
    ) -> None:
        """On a filled strip above the box, or inside where the image ends; always in the image."""
        text = class_names[index] + suffix
        font = sized(fonts_for(tuple(class_names))[index], self.font_size)
        left, top, right, bottom = self.draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 4, bottom - top + 4
        x = min(max(box[0], 0), max(self.image.width - width, 0))
        y = box[1] - height if box[1] >= height else max(box[1], 0)
        self.draw.rectangle((x, y, x + width, y + height), fill=color)
        luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        ink = (0, 0, 0) if luminance > 140 else (255, 255, 255)
        self.draw.text((x + 2 - left, y + 2 - top), text, ink, font)

    def array(self) -> np.ndarray:
        return np.array(self.image)
