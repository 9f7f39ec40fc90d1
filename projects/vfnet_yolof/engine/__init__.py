"""Training and evaluation: one engine for LazyConfig and yacs configs."""

from typing import Any


def __getattr__(name: str) -> Any:
    # As configurations of release 0.1 have it. The commands import from here without torch.
    if name == "get_optimizer_params":
        from ..solver import get_optimizer_params

        return get_optimizer_params
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
