"""Figures that show what a detector sees in single images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Instances
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...config.options import ConfigError
from ...drawing.canvas import display_scale
from ...drawing.charts import new_figure, plain
from ...drawing.visualization import (
    draw_distributions,
    draw_ground_truth,
    draw_instances,
    draw_star,
)
from ..subject import Subject
from . import Drawn, Options

_SHOWN = 4  # images of a figure, unless --images says another number


class Maps(NamedTuple):
    """What the head says at each location of one level, each (H, W) float32 in [0, 1].

    Attributes:
        score: of the best class, of the best anchor. quality: the quality branch's; None without
            one.
    """

    score: Tensor
    quality: Tensor | None

    @property
    def ranking(self) -> Tensor:
        """What ranks the boxes in the NMS."""
        return self.score if self.quality is None else self.score * self.quality


@torch.no_grad()
def level_maps(subject: Subject, inputs: dict[str, Any]) -> list[Maps]:
    """The head's output for one image as maps, finest level first; padding is cut off.

    Args:
        inputs: Detectron2's input dict.
    """
    model = subject.model
    images, features, predictions = model.raw_predictions([inputs])
    (outputs,) = model.image_outputs(images, features, predictions)
    padded = images.tensor.shape[-2:]
    found = []
    for level, logits in enumerate(outputs.logits):
        height, width = features[level].shape[-2:]
        score = logits.float().sigmoid().amax(1).view(height, width, -1).amax(-1)
        quality = None
        if outputs.factors is not None:
            quality = outputs.factors[level].float().view(height, width, -1).amax(-1)
        rows, columns = (
            max(1, -(-n * length // whole))
            for n, length, whole in zip((height, width), outputs.image_size, padded, strict=True)
        )
        cut = [None if x is None else x[:rows, :columns].cpu() for x in (score, quality)]
        assert cut[0] is not None
        found.append(Maps(cut[0], cut[1]))
    return found


def maps(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figures 1 and 2 of VFNet: an image, and the head's output at each location, by level.

    The columns are the best class score, what the quality branch predicts, and their product,
    which ranks the boxes; a detector without the branch has the first alone, which then is
    the ranking (VFNet's IoU-aware score, GFL's joint representation). All maps have one scale.

    The numbers have, by level, the highest value of each map and its (row, column).

    Raises:
        ConfigError: there is no image of that number.
    """
    (subject,) = subjects
    inputs = _image_number(subject, options.image)
    levels = level_maps(subject, inputs)
    separate = levels[0].quality is not None
    names = ["class score", "predicted quality", "product"] if separate else ["score"]
    figure = new_figure(2.4 * (len(names) + 1), 1.9 * len(levels))
    axes = figure.subplots(len(levels), len(names) + 1, squeeze=False)
    show(axes[0, 0], _drawn_truth(subject, inputs), "the image")
    for row in axes[1:]:
        row[0].set_axis_off()
    told: dict[str, Any] = {}
    for name, row, level in zip(subject.model.head_in_features, axes, levels, strict=True):
        values = [level.score, level.quality, level.ranking] if separate else [level.score]
        told[name] = {}
        for title, axis, value in zip(names, row[1:], values, strict=True):
            assert value is not None
            drawn = axis.imshow(value, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
            axis.set_title(f"{name}: {title}", fontsize=8)
            axis.set_axis_off()
            best = int(value.argmax())
            place = [best // value.shape[1], best % value.shape[1]]
            told[name][title] = {"highest": round(float(value.max()), 6), "at": place}
    figure.colorbar(drawn, ax=axes[:, 1:], shrink=0.6)
    highest = max(told, key=lambda name: told[name][names[-1]]["highest"])
    return Drawn(
        figure,
        {"image": name_of(inputs), "levels": told},
        f"{name_of(inputs)}: what ranks the boxes is highest on {highest}, "
        f"{told[highest][names[-1]]['highest']:.2f}.",
    )


def star(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figures 1 and 3 of VFNet: first box, its nine star points, refined box.

    The numbers have these of each detection drawn, in pixels of the network's input.

    Raises:
        ConfigError: the model has no star points, or finds nothing above the threshold.
    """
    inputs, found, names = _found_with(subjects, options, "star", "VFNet has star points")
    image = draw_star(rgb_of(subjects[0], inputs), found, names, scale=_scale(inputs))
    told = [
        {"first_box": first, "star_points": points, "refined_box": refined, "score": score}
        for first, points, refined, score in zip(
            rounded(found.init_boxes.tensor),
            rounded(found.star_points),
            rounded(found.pred_boxes.tensor),
            rounded(found.scores),
            strict=True,
        )
    ]
    moved = (found.init_boxes.tensor - found.pred_boxes.tensor).abs().mean()
    return Drawn(
        _single(image),
        {"image": name_of(inputs), "detections": told},
        f"{name_of(inputs)}: {len(found)} first boxes (red) with their star points (yellow) and "
        f"refined boxes (blue); the refinement moves a side by {moved:.1f} px on average.",
    )


def sides(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figure 3 of GFL: the predicted distribution of each side of the boxes.

    The numbers have mean and standard deviation of each side's distance in pixels of the network's
    input, and its entropy in nats: left, top, right, bottom.

    Raises:
        ConfigError: the model has no distributions, or finds nothing above the threshold.
    """
    wanted = "GFL has distributions of box sides"
    inputs, found, names = _found_with(subjects, options, "distributions", wanted)
    if not found.has("side_probabilities"):
        raise ConfigError(
            f"{subjects[0].name} has no general distributions, whose bins could be drawn."
        )
    image = draw_distributions(rgb_of(subjects[0], inputs), found, names, scale=_scale(inputs))
    fields = {"mean": found.side_mean, "std": found.side_std, "entropy": found.side_entropy}
    told = [
        dict(zip(fields, values, strict=True))
        for values in zip(*(rounded(x) for x in fields.values()), strict=True)
    ]
    std = found.side_std
    return Drawn(
        _single(image),
        {"image": name_of(inputs), "detections": told},
        f"{name_of(inputs)}: {len(found)} boxes; the surest side has a standard deviation of "
        f"{std.min():.2f} px, the least sure one of {std.max():.2f} px.",
    )


def detections(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figure 4 of VFNet: what is found above the score threshold, with the ground truth beside.

    The first four of the test images, or ``--images``. The numbers have how many are found and how
    many there are, by image.
    """
    (subject,) = subjects
    shown = list(islice(subject.batches(), subject.images or _SHOWN))
    figure = new_figure(8.0, 2.9 * len(shown))
    axes = figure.subplots(len(shown), 2, squeeze=False)
    told: list[dict[str, Any]] = []
    for row, (inputs,) in zip(axes, shown, strict=True):
        found = _detected(subject, inputs, (), options.score_threshold)
        names = list(subject.classes.names)
        image = draw_instances(rgb_of(subject, inputs), found, names, scale=_scale(inputs))
        show(row[0], image, f"{name_of(inputs)}: found, score ≥ {options.score_threshold:g}")
        show(row[1], _drawn_truth(subject, inputs), "ground truth")
        count = len(inputs["instances"])
        told.append({"image": name_of(inputs), "found": len(found), "ground_truth": count})
    totals = [sum(x[key] for x in told) for key in ("found", "ground_truth")]
    return Drawn(
        figure,
        {"score_threshold": options.score_threshold, "images": told},
        f"{totals[0]} detections that score {options.score_threshold:g} or more in {len(told)} "
        f"images with {totals[1]} objects.",
    )


def _found_with(
    subjects: Sequence[Subject], options: Options, field: str, wanted: str
) -> tuple[dict[str, Any], Instances, list[str]]:
    """One image, the detections in it with an extra field, and the classes' names."""
    (subject,) = subjects
    if field not in subject.model.extra_fields:
        kind = type(subject.model).__name__
        raise ConfigError(f"{subject.name} is a {kind} without that: {wanted}, name one.")
    require_count(options)
    inputs = _image_number(subject, options.image)
    found = _detected(subject, inputs, (field,), options.score_threshold)
    if not len(found):
        raise ConfigError(
            f"{subject.name} finds nothing that scores {options.score_threshold:g} in "
            f"{name_of(inputs)}: lower --score-threshold, or take another --image."
        )
    return inputs, found[: options.count], list(subject.classes.names)


def require_count(options: Options) -> None:
    """Raises ConfigError where nothing would be drawn."""
    if options.count < 1:
        raise ConfigError(f"--count {options.count}: give 1 or more.")


@torch.no_grad()
def _detected(
    subject: Subject, inputs: dict[str, Any], fields: Sequence[str], threshold: float
) -> Instances:
    """Detections in pixels of the network's input, best first, on the CPU."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"--score-threshold {threshold:g}: scores lie in [0, 1].")
    (output,) = subject.model.detect([{"image": inputs["image"]}], fields)
    found = output["instances"].to("cpu")
    return found[found.scores >= threshold]


def _image_number(subject: Subject, number: int) -> dict[str, Any]:
    """Input dict of a test image, counted from 0."""
    if number < 0:
        raise ConfigError(f"--image {number}: images are counted from 0.")
    (inputs,) = next(islice(subject.batches(), number, None), (None,))
    if inputs is None:
        count = sum(1 for _ in subject.batches())
        raise ConfigError(f"--image {number}: there are {count} test images, counted from 0.")
    return inputs


def rgb_of(subject: Subject, inputs: dict[str, Any]) -> np.ndarray:
    """(H, W, 3) uint8, R, G, B, of the network's input before normalisation."""
    image = inputs["image"].float().round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    reverse = subject.model.input_format == "BGR"
    return np.ascontiguousarray(image[:, :, ::-1] if reverse else image)


def _drawn_truth(subject: Subject, inputs: dict[str, Any]) -> np.ndarray:
    truth, names = inputs["instances"].to("cpu"), list(subject.classes.names)
    return draw_ground_truth(rgb_of(subject, inputs), truth, names, scale=_scale(inputs))


def _scale(inputs: dict[str, Any]) -> int:
    height, width = inputs["image"].shape[-2:]
    return display_scale(height, width)


def name_of(inputs: dict[str, Any]) -> str:
    """The image's file, without its folder."""
    return str(inputs.get("file_name", inputs.get("image_id", "image"))).rpartition("/")[2]


def rounded(values: Tensor) -> Any:
    """Nested lists of a tensor on the CPU, to four decimals."""
    return np.round(values.double().numpy(), 4).tolist()


def show(axes: Axes, image: np.ndarray, title: str) -> None:
    """Draw an image without axes."""
    axes.imshow(image)
    axes.set_title(plain(title), fontsize=8)
    axes.set_axis_off()


def _single(image: np.ndarray) -> Figure:
    height, width = image.shape[:2]
    figure = new_figure(7.0, max(2.0, 7.0 * height / width))
    axes = figure.add_subplot()
    axes.imshow(image)
    axes.set_axis_off()
    return figure
