"""Figures of distributions over distances, which need no model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...config.options import ConfigError
from ...drawing.charts import bare, new_figure
from ...drawing.curves import COLORS
from ...modeling.losses import distribution_focal_loss
from ..subject import Subject
from . import Drawn, Options

_LAST = 16  # the last bin, as GFL has it
_STEPS = 200  # of a bisection: far below what float64 tells apart


def with_mean(shape: Tensor, mean: float) -> Tensor:
    """The distribution nearest to a shape that has a given mean.

    Nearest in relative entropy: ``shape`` times an exponential, which is found by bisection.

    Args:
        shape: (n + 1,) positive float64, of the bins 0 to n. mean: between 0 and n.

    Returns:
        (n + 1,) float64 that sum to 1.
    """
    bins = torch.arange(len(shape), dtype=shape.dtype)
    low, high = -100.0, 100.0
    for _ in range(_STEPS):
        tilt = (low + high) / 2
        found = (shape.log() + tilt * bins).softmax(0)
        low, high = (tilt, high) if float((found * bins).sum()) < mean else (low, tilt)
    return found


def dfl(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figure 5b of GFL: distributions of the same mean, and the distribution focal loss of each.

    The box is the mean, so a loss of boxes alone cannot tell them apart. The distribution focal
    loss (equation 6) is least for the one that lies at the two bins beside the target.

    The numbers have, by distribution, its probabilities, mean and loss, and the least loss there
    is, the entropy of the two bins' weights.

    Raises:
        ConfigError: the target does not lie between the first and the last bin.
    """
    target = options.target
    if not 0 < target < _LAST:
        raise ConfigError(f"--target {target:g}: give a distance between bins 0 and {_LAST}.")
    bins = torch.arange(_LAST + 1, dtype=torch.float64)

    def peak(middle: float, width: float) -> Tensor:
        return (-0.5 * ((bins - middle) / width) ** 2).exp() + 1e-9

    shapes = {
        "(1) flat": torch.ones_like(bins),
        "(2) two peaks": peak(target - 3.5, 0.9) + peak(target + 3.5, 0.9),
        "(3) compact": peak(target, 0.7),
    }
    figure = new_figure(8.4, 2.9)
    row = figure.subplots(1, len(shapes), sharey=True)
    told = {}
    for number, (axes, (name, shape)) in enumerate(zip(row, shapes.items(), strict=True)):
        found = with_mean(shape, target)
        label = torch.tensor(target, dtype=torch.float64)
        loss = float(distribution_focal_loss(found.log()[None], label[None], reduction="sum"))
        mean = float((found * bins).sum())
        told[name] = {"probabilities": found.tolist(), "mean": mean, "loss": loss}
        axes.bar(bins, found, width=0.85, color=COLORS[number])
        axes.axvline(target, color="black", linewidth=1, linestyle="--")
        axes.set_title(f"{name}: mean {mean:.2f}, DFL {loss:.2f}", fontsize=8)
        axes.set_xlabel("distance in bins")
        bare(axes)
    row[0].set_ylabel("probability")
    part = torch.tensor([1 - target % 1, target % 1], dtype=torch.float64)
    least = float(torch.special.entr(part).sum())
    losses = ", ".join(f"{x['loss']:.2f}" for x in told.values())
    return Drawn(
        figure,
        {"target": target, "distributions": told, "least_loss": least},
        f"All have the mean {target:g}; their distribution focal losses are {losses}, and the "
        f"least there is {least:.2f}.",
    )
