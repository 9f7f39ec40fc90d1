"""Batch norms multiplied into the convolutions before them, for good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias, TypeGuard

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..layers.deform_conv import DeformConv2d

Conv: TypeAlias = nn.Conv2d | DeformConv2d
Norm: TypeAlias = FrozenBatchNorm2d | _BatchNorm


def fold_batch_norms(model: nn.Module) -> int:
    """Multiply batch norms that use running statistics into the convolutions before them.

    Found are a convolution's own ``norm`` (Detectron2's convolutions, ours), a ``norm`` beside a
    ``conv``, and neighbours in a ``Sequential``. ``model``, in evaluation mode, is changed; the
    norms are gone.

    Returns:
        How many were folded.
    """
    pairs = list(_conv_norm_pairs(model))
    for conv, owner, name in pairs:
        _fold(conv, getattr(owner, name))
        setattr(owner, name, nn.Identity() if isinstance(owner, nn.Sequential) else None)
    return len(pairs)


def _conv_norm_pairs(model: nn.Module) -> Iterator[tuple[Conv, nn.Module, str]]:
    """Convolution, and the module and attribute that hold its norm."""
    for module in model.modules():
        if is_conv(module) and has_fixed_statistics(getattr(module, "norm", None)):
            yield module, module, "norm"
        elif isinstance(module, nn.Sequential):
            names = list(module._modules)
            for first, second in zip(names, names[1:], strict=False):
                before = module._modules[first]
                if _is_bare_conv(before) and has_fixed_statistics(module._modules[second]):
                    yield before, module, second
        elif _is_bare_conv(conv := getattr(module, "conv", None)):
            for name in ("norm", "bn"):
                if has_fixed_statistics(getattr(module, name, None)):
                    yield conv, module, name


def is_plain_conv(module: object) -> TypeGuard[nn.Conv2d]:
    """A convolution of torch's or Detectron2's that is computed in their way.

    Subclasses with a ``forward`` of their own do something else to weight or input.
    """
    plain = (nn.Conv2d.forward, Conv2d.forward)
    return isinstance(module, nn.Conv2d) and type(module).forward in plain


def has_fixed_statistics(norm: object) -> TypeGuard[Norm]:
    """Whether a norm is, as things stand, a factor and a summand for each channel."""
    if isinstance(norm, FrozenBatchNorm2d):
        return True
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None and not norm.training


def is_conv(module: object) -> TypeGuard[Conv]:
    """A convolution whose output is linear in its weight, channel by channel."""
    return is_plain_conv(module) or isinstance(module, DeformConv2d)


def _is_bare_conv(module: object) -> TypeGuard[Conv]:
    """A convolution whose output is that of its product: no norm or activation of its own."""
    return is_conv(module) and not any(
        getattr(module, name, None) is not None for name in ("norm", "activation")
    )


def _fold(conv: Conv, norm: Norm) -> None:
    def wide(tensor: Tensor | None) -> Tensor:
        assert tensor is not None  # `has_fixed_statistics` has seen them
        return tensor.detach().double()

    weight, bias = fuse_conv_bn_weights(
        wide(conv.weight),
        None if conv.bias is None else wide(conv.bias),
        wide(norm.running_mean),
        wide(norm.running_var),
        norm.eps,
        None if norm.weight is None else wide(norm.weight),
        None if norm.bias is None else wide(norm.bias),
    )
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
