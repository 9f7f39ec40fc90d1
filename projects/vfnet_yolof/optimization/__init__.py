"""Detectors that do the same in less time: for inference a copy, for training the model itself."""

from .inference import optimize
from .training import optimize_training

__all__ = ["optimize", "optimize_training"]
