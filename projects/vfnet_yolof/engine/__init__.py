"""Training: one engine for LazyConfig and yacs configs."""

from .optim import get_optimizer_params
from .options import ConfigError

__all__ = ["ConfigError", "argument_parser", "command_line", "get_optimizer_params", "main"]


def __getattr__(name: str) -> object:
    # Configs import get_optimizer_params; they need neither the command line nor the hooks.
    if name in ("argument_parser", "command_line", "main"):
        from . import cli

        return getattr(cli, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
