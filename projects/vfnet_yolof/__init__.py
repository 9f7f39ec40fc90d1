"""VFNet, GFL and YOLOF as Detectron2 meta-architectures.

Importing the package registers the meta-architectures and backbones with Detectron2, and makes
Detectron2's checkpointer read ``.pkl`` files without running their code.
"""

from typing import Any

__all__ = ["Predictor", "__version__", "optimize"]

# First of all: Detectron2 may be told to load `detectron2_setup`, which needs modules of this
# package whole, and not in the middle of their own import.
import detectron2  # noqa: F401

from . import modeling  # noqa: F401  (registration with Detectron2)
from .checkpoint.loading import guard_detection_checkpointer
from .renamed import find_moved_modules
from .utils import __version__

guard_detection_checkpointer()
find_moved_modules()


def __getattr__(name: str) -> Any:
    # Drawing and decoding libraries are only imported by those who predict.
    if name == "Predictor":
        from .inference.predictor import Predictor

        return Predictor
    if name == "optimize":
        from .optimization import optimize

        return optimize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
