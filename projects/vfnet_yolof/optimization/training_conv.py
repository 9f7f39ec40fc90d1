"""A convolution with what a training step can do without."""

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from . import winograd


def is_plain_conv(module: object) -> bool:
    """A convolution of torch's or Detectron2's that is computed in their way.

    Subclasses with a ``forward`` of their own do something else to weight or input.
    """
    plain = (nn.Conv2d.forward, Conv2d.forward, TrainingConv2d.forward)
    return isinstance(module, nn.Conv2d) and type(module).forward in plain


def has_fixed_statistics(norm: object) -> bool:
    """Whether a norm is, as things stand, a factor and a summand for each channel."""
    if isinstance(norm, FrozenBatchNorm2d):
        return True
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None and not norm.training


def folded(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution with a norm of fixed statistics after it.

    Gradients reach the convolution's parameters and the norm's.

    Args:
        weight: (O, I, kH, kW).
        bias: (O,) or None.
        norm: one that :func:`has_fixed_statistics`.
    """
    factor = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = norm.weight * factor
    shift = -norm.running_mean if bias is None else bias - norm.running_mean
    shift = shift * factor if norm.bias is None else torch.addcmul(norm.bias, shift, factor)
    return weight * factor[:, None, None, None], shift


class TrainingConv2d(Conv2d):
    """Detectron2's convolution: same parameters, names and results, in less time.

    A norm with fixed statistics is multiplied into the weight, so that it neither reads nor keeps
    the feature map: the gradients of its affine part come with that of the weight. On the CPU in
    float32 a 3x3 convolution of many channels and its gradients may be computed by Winograd's
    algorithm.

    Args:
        conv: whose parameters, norm and activation this one shares; see :func:`is_plain_conv`.
        use_winograd: use that algorithm where it gains.
    """

    def __init__(self, conv: nn.Conv2d, *, use_winograd: bool) -> None:
        if not is_plain_conv(conv):
            raise TypeError(f"{type(conv).__name__} is not a plain convolution")
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            device="meta",  # neither memory nor random numbers for what is replaced at once
            norm=getattr(conv, "norm", None),
            activation=getattr(conv, "activation", None),
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.use_winograd = use_winograd and winograd.suits(conv)
        self.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, ``out_channels``, Ho, Wo)."""
        weight, bias, norm = self.weight, self.bias, self.norm
        if has_fixed_statistics(norm):
            (weight, bias), norm = folded(weight, bias, norm), None
        x = self._convolve(x, weight, bias)
        if norm is not None:
            x = norm(x)
        return x if self.activation is None else self.activation(x)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (
            self.use_winograd
            and x.dtype == torch.float32
            and not torch.is_autocast_enabled(x.device.type)
            and winograd.tiles_of(x, self.padding) >= winograd.MIN_TILES_IN_TRAINING
        ):
            return winograd.winograd_conv2d(x, weight, bias, self.padding)
        return self._conv_forward(x, weight, bias)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", winograd" if self.use_winograd else "")
