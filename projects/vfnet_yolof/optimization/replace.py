"""Replacing modules of a network by others."""

from collections.abc import Callable

from torch import nn


def replace_modules(network: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put what ``make`` returns for a module, unless it is None, into all of its places.

    Places are attributes, and the plain lists in which Detectron2's FPN keeps its convolutions a
    second time. ``network`` itself stays.
    """
    made: dict[nn.Module, nn.Module] = {}
    modules = list(network.modules())
    for module in modules[1:]:
        if (new := make(module)) is not None:
            made[module] = new
    for module in modules:
        for name, child in module._modules.items():
            if child in made:
                setattr(module, name, made[child])
        for value in vars(module).values():
            if isinstance(value, list):
                value[:] = [made.get(x, x) if isinstance(x, nn.Module) else x for x in value]
