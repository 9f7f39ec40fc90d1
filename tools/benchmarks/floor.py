"""The convolution floor: the time of a model's own convolutions and matrix products alone."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vfnet_yolof.layers.deform_conv import DeformConv2d

FORMATS = {"channels last": torch.channels_last, "NCHW": torch.contiguous_format}


class ProductCall(NamedTuple):
    """A convolution or a matrix product as a model calls it.

    A deformable convolution counts as the dense one of the same shape. ``geometry`` is (stride,
    padding, dilation, groups), or None for a linear layer.
    """

    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    bias: bool
    geometry: tuple[Any, Any, Any, int] | None

    @property
    def flops(self) -> int:
        """Multiplications and additions, counted apart."""
        output = self.run(*self.tensors(torch.device("meta"), torch.float32))
        return 2 * output.numel() * math.prod(self.weight_shape[1:])

    def tensors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Random input and weight, and bias if there is one."""
        shapes = [self.input_shape, self.weight_shape]
        if self.bias:
            shapes.append(self.weight_shape[:1])
        return tuple(torch.randn(shape, device=device, dtype=dtype) for shape in shapes)

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.geometry is None:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, *self.geometry)


def record_products(model: nn.Module, run: Callable[[], Any]) -> list[ProductCall]:
    """Convolutions and linear layers inside of ``model`` that ``run`` calls, in their order."""
    calls: list[ProductCall] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        geometry = None
        if not isinstance(module, nn.Linear):
            geometry = (module.stride, module.padding, module.dilation, module.groups)
        x = args[0] if args else next(iter(kwargs.values()))
        weight, bias = module.weight, module.bias is not None
        calls.append(ProductCall(tuple(x.shape), tuple(weight.shape), bias, geometry))

    handles = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear | DeformConv2d)
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise ValueError("the run has called no convolution of the model")
    return calls


def replay(
    calls: list[ProductCall],
    *,
    memory_format: torch.memory_format,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Callable[[], None]:
    """A function that computes all of ``calls`` once, each with weights of its own.

    Inputs of one shape are shared: a model's activations are in the cache when they are used.
    """
    device = torch.device(device)
    inputs: dict[tuple[int, ...], Tensor] = {}
    prepared = []
    for call in calls:
        x, *parameters = call.tensors(device, dtype)
        if call.geometry is not None:
            x = x.to(memory_format=memory_format)
            parameters[0] = parameters[0].to(memory_format=memory_format)
        prepared.append((call, inputs.setdefault(call.input_shape, x), parameters))

    @torch.inference_mode()
    def run() -> None:
        for call, x, parameters in prepared:
            call.run(x, *parameters)

    return run
