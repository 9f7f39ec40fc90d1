"""VFNet, GFL and YOLOF as Detectron2 meta-architectures.

With this package imported, Detectron2 knows its meta-architectures and backbones, and Detectron2's
checkpointer reads ``.pkl`` files without running their code. Importing it loads neither PyTorch nor
Detectron2, and needs neither.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from .registration import register
from .renamed import find_moved_modules
from .utils import __version__
from .utils.quiet import follow_command

if TYPE_CHECKING:
    from . import model_zoo
    from .inference.predictor import Predictor
    from .optimization import optimize

__all__ = ["Predictor", "__version__", "from_zoo", "model_zoo", "optimize"]

# Name: the module that has it, imported when the name is first used.
_LAZY = {"Predictor": ".inference.predictor", "optimize": ".optimization"}

follow_command()  # in its processes, before PyTorch and others are imported
register()
find_moved_modules()


def from_zoo(
    name: str, weights: str | os.PathLike[str] | None = None, **options: Any
) -> "Predictor":
    """A predictor with the published weights of a row of the model zoo.

    ::

        predictor = vfnet_yolof.from_zoo("vfnet_r50_fpn_1x")

    Images are resized and padded as where these weights were trained.

    Args:
        name: a row, see ``vfnet-yolof zoo``; folder and ``.py`` may be left out.
        weights: a checkpoint, or a folder that has the published file. By default that is looked
            for in the working directory and the cache, and else fetched into the cache.
        options: further arguments of :class:`Predictor`.

    Raises:
        KeyError: no such row; the nearest ones are named.
        WeightsUnavailableError: nothing is published for it, or it is not here and could not be
            fetched; the message says where to get it and where to put it.
        CheckpointError: the file is damaged or another one. Moreover as of :class:`Predictor`.
    """
    from .inference.predictor import Predictor
    from .model_zoo import find_trained

    found = find_trained(name, weights)
    overrides = [*found.overrides, *options.pop("overrides", ())]
    return Predictor(found.config, found.weights, overrides=overrides, **options)


def __getattr__(name: str) -> Any:
    if name == "model_zoo":
        return importlib.import_module(".model_zoo", __name__)
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
