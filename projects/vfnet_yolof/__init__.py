"""VFNet, GFL and YOLOF as Detectron2 meta-architectures.

With this package imported, Detectron2 knows its meta-architectures and backbones, and Detectron2's
checkpointer reads ``.pkl`` files without running their code. Importing it loads neither PyTorch nor
Detectron2, and needs neither.
"""

from typing import TYPE_CHECKING, Any

from .registration import register
from .renamed import find_moved_modules
from .utils import __version__
from .utils.quiet import follow_command

if TYPE_CHECKING:
    from .inference.predictor import Predictor
    from .optimization import optimize

__all__ = ["Predictor", "__version__", "optimize"]

follow_command()  # in its processes, before PyTorch and others are imported
register()
find_moved_modules()


def __getattr__(name: str) -> Any:
    if name == "Predictor":
        from .inference.predictor import Predictor

        return Predictor
    if name == "optimize":
        from .optimization import optimize

        return optimize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
