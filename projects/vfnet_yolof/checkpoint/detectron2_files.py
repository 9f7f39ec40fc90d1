"""``.pkl`` files for Detectron2's own checkpointer, which the yaml files use.

:mod:`vfnet_yolof.registration` puts this in the place of what it has for them.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

from .pickles import BoundedStream, Budget
from .restricted import RestrictedUnpickler, plain
from .rules import CheckpointError


def load_pkl(stream: BinaryIO) -> Any:
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
