"""Figures of loss functions, which need no model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...config.options import ConfigError
from ...drawing.charts import label_axes, line_style, new_axes
from ...modeling.losses import quality_focal_loss
from ..subject import Subject
from . import Drawn, Options

_POINTS = 199  # of the curves: 0.005, 0.010, ... 0.995


def qfl(subjects: Sequence[Subject], options: Options) -> Drawn:
    """Figure 5a of GFL: the quality focal loss against the predicted score, for several beta.

    The numbers have ``score`` and, by beta, ``loss``.

    Raises:
        ConfigError: a beta is negative, or the quality does not lie in [0, 1].
    """
    if not 0 <= options.quality <= 1:
        raise ConfigError(f"--quality {options.quality:g}: an IoU lies in [0, 1].")
    for beta in options.betas:
        if not 0 <= beta < float("inf"):
            raise ConfigError(f"--betas {beta:g}: give finite numbers of 0 or more.")
    score = torch.arange(1, _POINTS + 1, dtype=torch.float64) / (_POINTS + 1)
    target = torch.full_like(score, options.quality)
    figure, axes = new_axes()
    curves = {}
    for number, beta in enumerate(options.betas):
        loss = quality_focal_loss(score.logit(), target, beta=beta, reduction="none")
        curves[f"{beta:g}"] = loss.tolist()
        axes.plot(score, loss, label=f"beta {beta:g}", **line_style(number))
    axes.axvline(options.quality, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    label_axes(axes, "predicted score", f"loss at quality {options.quality:g}")
    numbers = {"quality": options.quality, "score": score.tolist(), "loss": curves}
    return Drawn(
        figure,
        numbers,
        f"The loss of {len(curves)} beta is least where the score is the quality, "
        f"{options.quality:g}" + ("; beta 0 is the cross entropy." if 0 in options.betas else "."),
    )
