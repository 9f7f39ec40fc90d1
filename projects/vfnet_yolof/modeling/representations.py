"""How the four sides of a box are predicted (Generalized Focal Loss, section 3, table 2a).

A representation reads ``channels`` numbers for each side, side-major in the order left, top,
right, bottom. Distances are in units of the level's stride.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .boxes import SCALE_CLAMP
from .losses.classification import check_nonnegative, check_share
from .losses.focal import distribution_focal_loss


class SideStatistics(NamedTuple):
    """What is known about each side's distance, in strides.

    Attributes:
        probabilities: (..., 4, bins), or None where the representation has no bins.
        mean, std: (..., 4). entropy: (..., 4) nats; of a density if there are no bins.
    """

    probabilities: Tensor | None
    mean: Tensor
    std: Tensor
    entropy: Tensor


class GeneralDistribution:
    """Any distribution over ``reg_max + 1`` evenly spaced distances (equations 4 to 6).

    Args:
        reg_max: n, index of the last bin. interval: distance of neighbouring bins; the last bin
            stands for ``reg_max * interval`` strides, so table 2c's interval of 0.5 goes with a
            ``reg_max`` of 32.
    """

    loss_name = "loss_dfl"

    def __init__(self, reg_max: int = 16, interval: float = 1.0) -> None:
        if reg_max < 1:
            raise ValueError(f"reg_max must be at least 1, got {reg_max}")
        if not interval > 0:
            raise ValueError(f"interval must be positive, got {interval}")
        check_nonnegative(interval=interval)
        self.reg_max = reg_max
        self.interval = interval

    @property
    def channels(self) -> int:
        """Numbers for each side."""
        return self.reg_max + 1

    @property
    def max_distance(self) -> float:
        """Longest distance that can be represented, in strides."""
        return self.reg_max * self.interval

    def decode(self, raw: Tensor) -> Tensor:
        """(..., 4 * channels) -> distances (..., 4): the expectations of the distributions."""
        return integral(_by_side(raw, self.channels), self.interval)

    def side_loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """DFL, unreduced: (P, 4 * channels) and distances (P, 4) -> (P, 4).

        Targets are counted in bins, ``distance / interval``, so that the two neighbours' weights
        sum to 1 at any interval (equation 6 as written would weigh them with ``interval``).
        They are clamped to [0, reg_max - 0.1], as in the reference.
        """
        bins = (target / self.interval).clamp(0, self.reg_max - 0.1)
        return distribution_focal_loss(_by_side(raw, self.channels), bins, reduction="none")

    def statistics(self, raw: Tensor) -> SideStatistics:
        """Of (..., 4 * channels)."""
        logits = _by_side(raw, self.channels)
        log_probabilities = logits.log_softmax(-1)
        probabilities = log_probabilities.exp()
        values = bin_values(logits, self.interval)
        mean = (probabilities * values).sum(-1)
        variance = (probabilities * (values - mean[..., None]).square()).sum(-1)
        entropy = -(probabilities * log_probabilities).sum(-1)
        return SideStatistics(probabilities, mean, variance.sqrt(), entropy)


class _Point:
    """A representation without a distribution: one number for each side."""

    channels = 1
    max_distance = math.inf
    loss_name = None

    def side_loss(self, raw: Tensor, target: Tensor) -> None:
        """None: a point has no shape to learn."""
        return None

    def decode(self, raw: Tensor) -> Tensor:
        raise NotImplementedError

    def statistics(self, raw: Tensor) -> SideStatistics:
        """All of the probability is at one point, whose (differential) entropy is -inf."""
        mean = self.decode(raw)
        return SideStatistics(None, mean, torch.zeros_like(mean), torch.full_like(mean, -math.inf))


class DiracDelta(_Point):
    """One number for each side: distances are ``exp(raw) * unit``, as in FCOS (equation 3).

    Args:
        unit: strides that a raw distance of exp(0) stands for; 1 in FCOS, 8 in VFNet.

    Raises:
        ValueError: it is not positive and finite.
    """

    def __init__(self, unit: float = 1.0) -> None:
        check_nonnegative(unit=unit)
        if not unit > 0:
            raise ValueError(f"unit must be positive, got {unit}")
        self.unit = unit

    def decode(self, raw: Tensor) -> Tensor:
        """(..., 4) -> distances (..., 4)."""
        return raw.exp() * self.unit


class AnchorDeltas(_Point):
    """Deltas (dx, dy, dw, dh) of a square anchor around the location: ATSS as it was published.

    ``box_geometry``: names and shapes of a head's weights do not tell deltas from distances.

    The shift of the centre in units of the anchor's side and the logarithms of the growth of width
    and height, each times its weight. They make the same four distances as other representations,
    so that a location outside of its box has negative ones.

    Args:
        anchor_side: in strides. weights: of the four numbers, as MMDetection's ``target_stds``.
        scale_clamp: largest magnitude of the logarithm of a growth.

    Raises:
        ValueError: a number is not positive and finite, or there are not four weights.
    """

    box_geometry = "anchor deltas"

    def __init__(
        self,
        anchor_side: float = 8.0,
        weights: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        scale_clamp: float = SCALE_CLAMP,
    ) -> None:
        self.anchor_side = anchor_side
        self.weights = tuple(weights)
        self.scale_clamp = scale_clamp
        if len(self.weights) != 4:
            raise ValueError(f"weights must be four numbers, got {weights}")
        check_nonnegative(anchor_side=anchor_side, scale_clamp=scale_clamp)
        check_nonnegative(**{f"weights[{i}]": x for i, x in enumerate(self.weights)})
        if not all(x > 0 for x in (anchor_side, *self.weights)):
            raise ValueError(f"anchor_side {anchor_side} and weights {weights} must be positive")

    def decode(self, raw: Tensor) -> Tensor:
        """(..., 4) -> distances (..., 4) to the left, top, right and bottom side, in strides."""
        dx, dy, dw, dh = (x * w for x, w in zip(raw.unbind(-1), self.weights, strict=True))
        x, y = dx * self.anchor_side, dy * self.anchor_side
        half_width, half_height = (
            0.5 * self.anchor_side * growth.clamp(-self.scale_clamp, self.scale_clamp).exp()
            for growth in (dw, dh)
        )
        return torch.stack(
            [half_width - x, half_height - y, half_width + x, half_height + y], dim=-1
        )


class GaussianDistribution:
    """Mean and variance of each side: ``exp(raw[0])`` and ``exp(raw[1])``, in strides.

    GFL compares with this assumption without giving its loss. Here it is that of He et al. (2019,
    "Bounding box regression with uncertainty", equations 9 and 10), which GFL cites: up to a
    constant the Kullback-Leibler divergence between the ground truth, a Dirac delta, and the
    prediction, in the logarithm of the variance, linear in errors above one stride. The mean alone
    makes the box, which the GIoU loss trains as ever.

    Args:
        max_log_variance: bound on the magnitude of the logarithm of the variance.

    Raises:
        ValueError: it is negative or not finite.
    """

    channels = 2
    max_distance = math.inf
    loss_name = "loss_kl"

    def __init__(self, max_log_variance: float = 8.0) -> None:
        check_nonnegative(max_log_variance=max_log_variance)
        self.max_log_variance = max_log_variance

    def decode(self, raw: Tensor) -> Tensor:
        """(..., 8) -> distances (..., 4): the means."""
        return _by_side(raw, 2)[..., 0].exp()

    def side_loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """(P, 8) and distances (P, 4) -> (P, 4), unreduced; may be negative."""
        log_variance = self._log_variance(raw)
        error = F.smooth_l1_loss(self.decode(raw), target, reduction="none")
        return (-log_variance).exp() * error + 0.5 * log_variance

    def statistics(self, raw: Tensor) -> SideStatistics:
        """Of (..., 8); the entropy is that of the normal density."""
        log_variance = self._log_variance(raw)
        entropy = 0.5 * (log_variance + math.log(2 * math.pi * math.e))
        return SideStatistics(None, self.decode(raw), (0.5 * log_variance).exp(), entropy)

    def _log_variance(self, raw: Tensor) -> Tensor:
        return _by_side(raw, 2)[..., 1].clamp(-self.max_log_variance, self.max_log_variance)


class MomentPoints(nn.Module):
    """Nine points whose mean and spread make the box (RepPoints, section 3.2: moment-based).

    There are (y, x) of each point, in strides from the location. The box reaches from the points'
    mean to ``std * exp(moment_transfer)`` on either side; ``moment_transfer`` (2,), for width and
    height, is learned for all boxes together.

    Args:
        num_points: points of each box.
        gradient_mul: share of the gradient that ``moment_transfer`` gets.

    Raises:
        ValueError: there are fewer than two points, or ``gradient_mul`` is not in [0, 1].
    """

    max_distance = math.inf
    loss_name = None

    def __init__(self, num_points: int = 9, gradient_mul: float = 0.01) -> None:
        super().__init__()
        if num_points < 2:
            raise ValueError(f"num_points must be at least 2, got {num_points}")
        check_share(gradient_mul=gradient_mul)
        self.num_points = num_points
        self.gradient_mul = gradient_mul
        self.moment_transfer = nn.Parameter(torch.zeros(2))

    def decode(self, raw: Tensor) -> Tensor:
        """(..., 2 * num_points) -> distances (..., 4), in strides."""
        y, x = raw.unflatten(-1, (self.num_points, 2)).unbind(-1)
        scaled = self.moment_transfer * self.gradient_mul
        growth = (scaled + self.moment_transfer.detach() * (1 - self.gradient_mul)).exp()
        center_x, center_y = x.mean(-1), y.mean(-1)
        half_width, half_height = _spread(x) * growth[0], _spread(y) * growth[1]
        return torch.stack(
            [
                half_width - center_x,
                half_height - center_y,
                half_width + center_x,
                half_height + center_y,
            ],
            dim=-1,
        )


def _spread(values: Tensor) -> Tensor:
    """Unbiased standard deviation (...) of (..., n); of no rows at all torch warns."""
    return values.std(-1) if values.numel() else values.sum(-1)


def _by_side(raw: Tensor, channels: int) -> Tensor:
    """(..., 4 * channels) -> (..., 4, channels)."""
    return raw.unflatten(-1, (4, channels))


def integral(logits: Tensor, interval: float = 1.0) -> Tensor:
    """Expectation of a distribution over evenly spaced values (GFL, equation 5).

    Args:
        logits: (..., bins) before the softmax. interval: distance of neighbouring values, the
            first of which is 0.

    Returns:
        (...) in [0, (bins - 1) * interval].
    """
    # A sum, not a matrix product: tools that count or convert operators know no product of a
    # tensor with a vector.
    return (logits.softmax(-1) * bin_values(logits, interval)).sum(-1)


def bin_values(logits: Tensor, interval: float = 1.0) -> Tensor:
    """The values (bins,) that the last dimension of ``logits`` stands for."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return bins * interval
