"""Reading checkpoint files from anywhere without running any of their code."""

from __future__ import annotations

import os
from typing import Any

import torch


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint to the CPU."""
    return torch.load(path, map_location="cpu", weights_only=True)
