"""Convolution for inference on the CPU with what PyTorch's ordinary one leaves to others.

PyTorch's compiler emits operators for frozen models which compute a sum and a ReLU while the output
of the convolution is in the cache, and which take a weight that is in oneDNN's own layout already:
an ordinary one is rearranged at every call, in a sixth of the time where the weight is large and
the map small.
"""

import platform
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .folding import is_plain_conv

MIN_WEIGHTS = 2**18  # smaller weights are rearranged in no time


def fusing_available() -> bool:
    """Whether this build of PyTorch has the operators, for this processor."""
    return (
        torch.backends.mkldnn.is_available()
        and platform.machine().lower() in ("x86_64", "amd64")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
        and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
    )


class FusedConv2d(nn.Module):
    """The function of a convolution, of a sum with another tensor, and of a ReLU.

    The layout of a large weight depends on the input's size (that for another one can be eightfold
    slower), so it is packed when a size comes for the second time in a row. Copies and pickles
    pack again.

    Args:
        conv: one that :meth:`suits`; the ``activation`` of one of Detectron2's is kept.
        relu: a ReLU follows the convolution and the sum.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        if not self.suits(conv):
            raise ValueError(f"no plain float32 convolution on the CPU: {conv}")
        self.activation: Callable[[Tensor], Tensor] | None = getattr(conv, "activation", None)
        self.relu = relu
        self.weight = nn.Parameter(conv.weight.detach(), requires_grad=False)
        bias = conv.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.geometry = ([*conv.padding], [*conv.stride], [*conv.dilation], conv.groups)
        self._latest: torch.Size | None = None
        self._packed: tuple[torch.Size, Tensor] | None = None

    @staticmethod
    def suits(conv: object) -> TypeGuard[nn.Conv2d]:
        """Whether ``conv`` can be computed so."""
        return (
            is_plain_conv(conv)
            and getattr(conv, "norm", None) is None
            and conv.padding_mode == "zeros"
            and not isinstance(conv.padding, str)
            and conv.weight.dtype == torch.float32
            and conv.weight.device.type == "cpu"
            and fusing_available()
        )

    @staticmethod
    def gains(conv: object) -> TypeGuard[nn.Conv2d]:
        """Whether ``conv`` can be computed so, and gains by its weight's size alone."""
        return FusedConv2d.suits(conv) and conv.weight.numel() >= MIN_WEIGHTS

    def __getstate__(self) -> dict[str, Any]:
        # What oneDNN has laid out can neither be copied nor saved.
        return {**self.__dict__, "_packed": None}

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C_out, Ho, Wo)."""
        weight = self._weight(x.shape)
        if self.relu or weight.is_mkldnn:
            out = torch.ops.mkldnn._convolution_pointwise(
                x, weight, self.bias, *self.geometry, "relu" if self.relu else "none", [], ""
            )
        else:
            padding, stride, dilation, groups = self.geometry
            out = F.conv2d(x, weight, self.bias, stride, padding, dilation, groups)
        return out if self.activation is None else self.activation(out)

    def add_to(self, other: Tensor, x: Tensor) -> Tensor:
        """``other``, (N, C_out, Ho, Wo) with channels last, after the output was added in place."""
        torch.ops.mkldnn._convolution_pointwise_.binary(
            other,
            x,
            self._weight(x.shape),
            self.bias,
            *self.geometry,
            "add",
            1.0,
            "relu" if self.relu else None,
            [],
            "",
        )
        return other if self.activation is None else self.activation(other)

    def _weight(self, size: torch.Size) -> Tensor:
        """The weight as it is, or packed for inputs of ``size``."""
        if self.weight.numel() < MIN_WEIGHTS:
            return self.weight
        again, self._latest = self._latest == size, size
        packed = self._packed
        if packed is not None and packed[0] == size:
            return packed[1]
        if not again:
            return self.weight
        with torch.inference_mode(False):  # it may be used outside of it later
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, *self.geometry, list(size)
            )
        self._packed = (size, weight)
        return weight

    def extra_repr(self) -> str:
        out_channels, channels, *kernel = self.weight.shape
        return f"{channels}, {out_channels}, {kernel}" + (", relu" if self.relu else "")
