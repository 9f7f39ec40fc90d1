"""Training and evaluation: one engine for LazyConfig and yacs configs."""

from ..solver import get_optimizer_params  # noqa: F401  (as configurations of release 0.1 have it)
