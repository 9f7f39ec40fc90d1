"""VFNet, GFL and YOLOF as Detectron2 meta-architectures.

Importing the package registers the meta-architectures and backbones with Detectron2, and makes
Detectron2's checkpointer read ``.pkl`` files without running their code.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "optimize", "optimize_training"]

# First of all: Detectron2 may be told to load `detectron2_setup`, which needs modules of this
# package whole, and not in the middle of their own import.
import detectron2  # noqa: F401

from . import modeling  # noqa: F401  (registration with Detectron2)
from .checkpoint.detectron2_files import guard_detection_checkpointer

guard_detection_checkpointer()


def __getattr__(name: str) -> Any:
    # Drawing and decoding libraries are only imported by those who predict.
    if name == "Predictor":
        from .predictor import Predictor

        return Predictor
    if name in ("optimize", "optimize_training"):
        from . import optimization

        return getattr(optimization, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
