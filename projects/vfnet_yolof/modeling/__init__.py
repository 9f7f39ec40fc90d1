"""Detectors: backbone -> neck -> head -> targets and losses, or decoding and NMS."""

from . import backbones, meta_arch, necks, yacs  # noqa: F401  (registration with Detectron2)
