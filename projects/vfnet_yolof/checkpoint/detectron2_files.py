"""What Detectron2's own checkpointer reads for those who come by the yaml files."""

from __future__ import annotations

import os
import pickle
from types import SimpleNamespace
from typing import Any, BinaryIO

from detectron2.checkpoint import detection_checkpoint

from .pickles import BoundedStream, Budget
from .restricted import RestrictedUnpickler, plain
from .rules import CheckpointError


def guard_detection_checkpointer() -> None:
    """Let ``DetectionCheckpointer`` read ``.pkl`` files without running their code.

    It calls :func:`pickle.load`, in every release; ``DefaultTrainer`` and ``DefaultPredictor`` read
    ``MODEL.WEIGHTS`` with it. The name ``pickle`` in its module then stands for the module with
    another ``load``, and nothing else changes. The copy that the installer here repairs has an
    unpickler of its own, whose place is taken in the same way.
    """
    names = {**vars(pickle), "load": _load}
    detection_checkpoint.pickle = SimpleNamespace(**names)
    if hasattr(detection_checkpoint, "_ArrayUnpickler"):
        detection_checkpoint._ArrayUnpickler = _Unpickler


class _Unpickler:
    """:func:`_load` with the interface of :class:`pickle.Unpickler`."""

    def __init__(self, stream: BinaryIO, **_: Any) -> None:
        self._stream = stream

    def load(self) -> Any:
        return _load(self._stream)


def _load(stream: BinaryIO, **_: Any) -> Any:
    """The same content, with tensors for arrays; objects of other classes are inert.

    Raises:
        CheckpointError: the file is damaged or announces what it does not have.
    """
    size = os.fstat(stream.fileno()).st_size
    source = BoundedStream(stream, size)
    try:
        return plain(RestrictedUnpickler(source, Budget(size), set()).load())
    except Exception as error:
        name = getattr(stream, "name", "the .pkl file")
        raise CheckpointError(f"{name}: cannot be read as a checkpoint: {error!s:.200}") from error
