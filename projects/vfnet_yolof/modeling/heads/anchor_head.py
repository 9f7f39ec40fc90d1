"""Heads with several anchors for each location: YOLOF's decoder and RetinaNet's head."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.conv import bias_for_prior, conv_tower, prediction_conv

LARGEST_LOGIT = math.log(1e8)  # the reference bounds the exponentials of the logits by 1e8


class AnchorPredictions(NamedTuple):
    """Raw predictions of a head with A anchors for each location, one entry for each level.

    Attributes:
        logits: (N, A * K, H, W) classification scores before the sigmoid, anchor-major.
        deltas: (N, A * 4, H, W), see :class:`vfnet_yolof.modeling.boxes.ClampedDeltaCoder`.
    """

    logits: list[Tensor]
    deltas: list[Tensor]

    @property
    def level_sizes(self) -> list[int]:
        """Anchors of an image on each level."""
        return [x.shape[1] // 4 * x.shape[-2] * x.shape[-1] for x in self.deltas]


def with_objectness(cls_logits: Tensor, objectness: Tensor) -> Tensor:
    """Logits of the product of two probabilities (YOLOF, section 4.3, after AutoAssign).

    For logits c and o, sigmoid(c) sigmoid(o) = sigmoid(c + o - log(1 + e^c + e^o)). Nothing
    overflows: as in the reference the exponentials stop growing at 1e8.

    Args:
        cls_logits: (N, A * K, H, W), anchor-major, any float type. objectness: (N, A, H, W).

    Returns:
        (N, A * K, H, W) float32.
    """
    num_anchors = objectness.shape[1]
    cls = cls_logits.float().unflatten(1, (num_anchors, cls_logits.shape[1] // num_anchors))
    obj = objectness.float()[:, :, None]
    log_sum = torch.logaddexp(
        F.softplus(cls.clamp(max=LARGEST_LOGIT)), obj.clamp(max=LARGEST_LOGIT)
    )
    return (cls + obj - log_sum).flatten(1, 2)


class AnchorHead(nn.Module):
    """Class logits and box deltas of A anchors per location, on any number of levels.

    The defaults are YOLOF's decoder (section 4.3). With four classification convolutions, no norm
    and no objectness it is RetinaNet's head. All levels share all weights.

    Args:
        in_channels: channels of the feature maps.
        num_classes: K. num_anchors: A.
        conv_channels: width of the towers.
        num_cls_convs, num_reg_convs: their depths.
        norm: normalisation of the towers, whose convolutions keep their biases; ``""`` for none.
        activation: see :func:`vfnet_yolof.layers.conv.make_activation`.
        implicit_objectness: predict an objectness beside the boxes, which nothing supervises
            directly, and multiply the class scores with it.
        prior_prob: foreground probability of the class logits at initialisation.
    """

    has_background = False

    def __init__(
        self,
        *,
        in_channels: int = 512,
        num_classes: int = 80,
        num_anchors: int = 5,
        conv_channels: int = 512,
        num_cls_convs: int = 2,
        num_reg_convs: int = 4,
        norm: str = "BN",
        activation: str = "ReLU",
        implicit_objectness: bool = True,
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_anchors = num_anchors
        tower: dict[str, Any] = dict(norm=norm, bias=True, activation=activation)
        self.cls_tower = conv_tower(in_channels, conv_channels, num_cls_convs, **tower)
        self.reg_tower = conv_tower(in_channels, conv_channels, num_reg_convs, **tower)
        prior = bias_for_prior(prior_prob)
        self.cls_logits = prediction_conv(conv_channels, num_anchors * num_classes, prior)
        self.deltas = prediction_conv(conv_channels, num_anchors * 4)
        self.objectness = (
            prediction_conv(conv_channels, num_anchors) if implicit_objectness else None
        )

    def forward(self, features: Sequence[Tensor]) -> AnchorPredictions:
        """Predict on every level; ``features`` are (N, C, H, W), finest first."""
        logits, deltas = [], []
        for x in features:
            cls_logits = self.cls_logits(self.cls_tower(x))
            reg_feature = self.reg_tower(x)
            deltas.append(self.deltas(reg_feature))
            if self.objectness is not None:
                cls_logits = with_objectness(cls_logits, self.objectness(reg_feature))
            logits.append(cls_logits)
        return AnchorPredictions(logits, deltas)
