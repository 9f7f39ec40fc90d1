"""Convolution towers and the small parts that dense heads share."""

import math

import torch
from detectron2.layers import get_norm
from torch import Tensor, nn

from .deform_conv import ModulatedDeformConvPack

GROUP_NORM_GROUPS = 32


def bias_for_prior(probability: float) -> float:
    """Bias of a logit whose sigmoid is ``probability`` (focal loss paper, section 4.1)."""
    if not 0.0 < probability < 1.0:
        raise ValueError(f"prior probability must lie in (0, 1), got {probability}")
    return -math.log((1.0 - probability) / probability)


class Scale(nn.Module):
    """A learnable scalar factor, one for each pyramid level."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def make_activation(name: str) -> nn.Module:
    """``"ReLU"``, ``"LeakyReLU"`` (slope 0.1, as in CSPDarkNet) or ``"Mish"``."""
    if name == "ReLU":
        return nn.ReLU(inplace=True)
    if name == "LeakyReLU":
        return nn.LeakyReLU(0.1, inplace=True)
    if name == "Mish":  # its gradient needs the input, so it cannot be in place
        return nn.Mish()
    raise ValueError(f"activation must be 'ReLU', 'LeakyReLU' or 'Mish', got {name!r}")


class ConvNormAct(nn.Module):
    """3x3 convolution, normalisation, activation: (N, C, H, W) -> (N, ``out_channels``, H, W).

    Args:
        in_channels, out_channels: channel counts.
        norm: anything that Detectron2's ``get_norm`` takes; ``""`` for none. ``"GN"`` has 32
            groups.
        deformable: use a modulated deformable convolution (DCNv2).
        bias: let the convolution have a bias; by default only where no norm follows.
        activation: see :func:`make_activation`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: str = "GN",
        deformable: bool = False,
        bias: bool | None = None,
        activation: str = "ReLU",
    ) -> None:
        super().__init__()
        conv = ModulatedDeformConvPack if deformable else nn.Conv2d
        bias = not norm if bias is None else bias
        self.conv = conv(in_channels, out_channels, kernel_size=3, padding=1, bias=bias)
        if norm == "GN" and out_channels % GROUP_NORM_GROUPS:
            raise ValueError(
                f"norm='GN' needs a channel count divisible by {GROUP_NORM_GROUPS}, "
                f"got {out_channels}"
            )
        self.norm = get_norm(norm, out_channels)
        self.activation = make_activation(activation)
        nn.init.normal_(self.conv.weight, std=0.01)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.activation(x)


def conv_tower(
    in_channels: int,
    channels: int,
    num_convs: int,
    *,
    norm: str = "GN",
    dcn_on_last_conv: bool = False,
    bias: bool | None = None,
    activation: str = "ReLU",
) -> nn.Sequential:
    """``num_convs`` blocks of :class:`ConvNormAct`, the last one deformable if asked."""
    return nn.Sequential(
        *(
            ConvNormAct(
                in_channels if i == 0 else channels,
                channels,
                norm=norm,
                deformable=dcn_on_last_conv and i == num_convs - 1,
                bias=bias,
                activation=activation,
            )
            for i in range(num_convs)
        )
    )


def prediction_conv(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Conv2d:
    """A 3x3 output convolution with the references' initialisation (normal, std 0.01)."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None  # by default it has one
    nn.init.constant_(conv.bias, bias)
    return conv
