"""Detectors for inference: copies that do the same in less time."""

from .inference import optimize

__all__ = ["optimize"]
