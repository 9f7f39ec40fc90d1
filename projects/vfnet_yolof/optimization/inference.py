"""A trained detector made ready for inference: the same function, in less time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .folding import fold_batch_norms, is_conv, is_plain_conv
from .fused_conv import FusedConv2d
from .replace import replace_modules
from .residual import fuse_resnets
from .winograd import WinogradConv2d

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Mish, nn.Hardswish)


def optimize(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    winograd: bool | None = None,
) -> nn.Module:
    """A copy of ``model`` for inference, which gives the same results faster.

    Batch norms are folded into their convolutions, activations work in place, and tensors have
    their channels last. On the CPU in float32, 3x3 convolutions with many channels are computed by
    Winograd's algorithm, large weights are kept in oneDNN's layout, and ResNets compute sums and
    ReLUs within their convolutions. The copy takes and gives what the model does (in float32 boxes
    differ by less than 0.01 pixels and scores by less than 0.001); it cannot be trained, and its
    weights are not to be saved: they no longer have the model's names.

    Args:
        model: a detector with a ``backbone``, e.g. any of this project's; it is left as it is.
        dtype: ``torch.bfloat16`` or ``torch.float16`` for backbone and head (deformable layers
            included, whose sampling positions stay in float32); by default that of the model.
            Preprocessing, decoding and suppression stay in float32.
        compile: compile backbone and head with ``torch.compile`` at their first call, and again
            for other image sizes. Needs a C++ compiler on the CPU.
        winograd: use that algorithm; by default on the CPU in float32 unless compiled.

    Raises:
        TypeError: the model has no backbone, or ``dtype`` is none of the above.
        ValueError: ``winograd=True`` without float32.
    """
    if not isinstance(backbone := getattr(model, "backbone", None), nn.Module):
        raise TypeError(f"{type(model).__name__} has no backbone: only detectors can be optimised")
    if dtype is not None and dtype not in DTYPES:
        raise TypeError(f"dtype must be one of {DTYPES}, got {dtype}")
    parameter = next(backbone.parameters())
    used = dtype or parameter.dtype
    by_onednn = parameter.device.type == "cpu" and used == torch.float32 and not compile
    if winograd is None:
        winograd = by_onednn
    elif winograd and used != torch.float32:
        raise ValueError(f"Winograd's algorithm is too coarse for {used}; it needs float32")

    fast = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batch_norms(fast)
    _work_in_place(fast)
    parts = (getattr(fast, name, None) for name in ("backbone", "head"))
    networks = [part for part in parts if isinstance(part, nn.Module)]
    for network in networks:
        network.to(used).to(memory_format=torch.channels_last)
        if winograd:
            replace_modules(network, _by_winograd)
        if by_onednn:
            fuse_resnets(network)
            replace_modules(network, lambda x: FusedConv2d(x) if FusedConv2d.gains(x) else None)
    networks[0].register_forward_pre_hook(_InputFormat(used))
    _remember_grids(fast)
    if compile:
        for network in networks:
            network.compile()
    return fast


class _InputFormat:
    """Hook that gives a module its input with channels last and in ``dtype``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        image, *rest = args
        return (image.to(dtype=self.dtype, memory_format=torch.channels_last), *rest)


class _BySize:
    """A function of feature sizes that remembers its results; several threads may call it.

    Args:
        function: gives tensors that nobody changes.
        key: what its result depends on, from the same arguments.
    """

    LIMIT = 32  # sizes

    def __init__(self, function: Callable[..., Any], key: Callable[..., Hashable]) -> None:
        self.function = function
        self.key = key
        self.known: dict[Hashable, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Another thread may be adding a result, and copies soon have their own.
        return {**self.__dict__, "known": {}}

    def __call__(self, *args: Any) -> Any:
        key = self.key(*args)
        # Each step is a single operation on one dictionary, which no other thread can see half
        # done; at worst two threads compute the same result.
        known = self.known
        result = known.get(key)
        if result is None:
            # Tensors of inference mode could not be used outside of it later.
            with torch.inference_mode(False):
                result = self.function(*args)
            if len(known) >= self.LIMIT:
                self.known = known = {}
            known[key] = result
        return result


def _sizes_and_device(sizes: Sequence[tuple[int, int]], device: torch.device) -> Hashable:
    return tuple(sizes), device


def _shapes_and_device(features: Sequence[Tensor]) -> Hashable:
    return tuple(x.shape[-2:] for x in features), features[0].device


def _remember_grids(model: nn.Module) -> None:
    """Points and anchors depend on the sizes of the features alone."""
    points = getattr(model, "points", None)
    if points is not None:
        points.points = _BySize(points.points, _sizes_and_device)
    generator = getattr(model, "anchor_generator", None)
    if generator is not None:
        generator.forward = _BySize(generator.forward, _shapes_and_device)


def _work_in_place(model: nn.Module) -> None:
    """Let activations overwrite what the convolution or norm just before them has made."""
    for module in model.modules():
        activation = getattr(module, "activation", None)
        if activation in (F.relu, torch.relu):
            vars(module)["activation"] = F.relu_
        if is_conv(module) and isinstance(activation, ACTIVATIONS):
            activation.inplace = True
        if isinstance(module, nn.Sequential):
            children = list(module)
            for before, child in zip(children, children[1:], strict=False):
                makes = is_conv(before) or isinstance(before, _BatchNorm | nn.GroupNorm)
                if makes and isinstance(child, ACTIVATIONS):
                    child.inplace = True


def _by_winograd(module: nn.Module) -> nn.Module | None:
    if is_plain_conv(module) and WinogradConv2d.suits(module):
        return WinogradConv2d(module)
    return None
