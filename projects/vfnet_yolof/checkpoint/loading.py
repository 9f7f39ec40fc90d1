"""Reading checkpoint files from anywhere without running any of their code."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from detectron2.utils.file_io import PathManager

from .pickles import BoundedStream, Budget, Unreadable
from .restricted import RestrictedUnpickler, plain
from .rules import CheckpointError, present_names, shorten_list
from .torch_files import DAMAGED, is_torch_file, read_torch

_MAX_HEADER = 16 << 20  # of a safetensors file: names and shapes


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read torch files of any age, ``.safetensors`` and Detectron2's ``.pkl`` to the CPU.

    The way in for every file with weights. Tensors, arrays (they become tensors) and plain Python
    values are read. Objects of any other class come back as inert :class:`~.pickles.Unreadable`; no
    code of the file runs. What the file announces is compared with what it has before anything is
    allocated, and checksums are compared where the format has them (zip). Tensors that this project
    called otherwise in earlier releases have their present names.

    Args:
        path: a file, or an address that Detectron2 knows (``detectron2://``, ``https://``).

    Returns:
        What the file holds, not yet unwrapped: see :func:`~.tensors.find_weights`, which checks the
        numbers.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it cannot be read; the message names the file, the entry and the fault.
    """
    local = local_file(path)
    with _errors_name(path):
        return present_names(
            {k: present_names(v) if isinstance(v, dict) else v for k, v in _load(local).items()}
        )


def load_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says beside its numbers: class names, the configuration, versions.

    Entries that hold tensors are left out; of torch's zip files they are not read at all, so that
    this takes milliseconds.

    Args:
        path: as :func:`load_checkpoint` takes it.

    Raises:
        FileNotFoundError, CheckpointError: as of :func:`load_checkpoint`.
    """
    local = local_file(path)
    with _errors_name(path):
        content = _load(local, numbers=False)
        return {key: value for key, value in content.items() if _without_numbers(value)}


def _without_numbers(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_without_numbers, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_without_numbers, value))
    return value is None or isinstance(value, str | int | float | bool)


@contextmanager
def _errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever a damaged or hostile file makes the readers raise: its name and a reason."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else "no further message"
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}: {reason:.200}); "
            f"{DAMAGED}"
        ) from error


def local_file(path: str | os.PathLike[str]) -> Path:
    """Where ``path`` lies on this machine; addresses are fetched.

    Raises:
        FileNotFoundError: there is none, or it cannot be fetched.
        CheckpointError: a folder, or a device.
    """
    try:
        local = Path(PathManager.get_local_path(os.fspath(path)))
    except (OSError, ValueError, AssertionError) as error:
        raise FileNotFoundError(f"checkpoint {path} cannot be fetched: {error}") from error
    if local.is_dir():
        raise CheckpointError(f"{path} is a folder; give the checkpoint file in it")
    if local.exists() and not local.is_file():
        raise CheckpointError(f"{path} is a pipe or a device; give a file")
    if not local.is_file():
        raise FileNotFoundError(f"checkpoint file {path} does not exist")
    return local


def _load(path: Path, *, numbers: bool = True) -> dict[str, Any]:
    replaced: set[str] = set()
    size = path.stat().st_size
    budget = Budget(size)
    with open(path, "rb") as stream:
        head = stream.read(1024)
        stream.seek(0)
        _refuse_other_files(head)
        if path.suffix == ".safetensors":
            return _load_safetensors(path, head, size)
        if is_torch_file(head):
            checkpoint = read_torch(stream, size, budget, replaced, numbers=numbers)
        else:
            source = BoundedStream(stream, size)
            try:
                checkpoint = plain(RestrictedUnpickler(source, budget, replaced).load())
            except Exception as error:
                if isinstance(error, CheckpointError) or not _is_text(head):
                    raise
                raise CheckpointError("cannot be read, it is a text; fetch the weights") from error
    if isinstance(checkpoint, Unreadable):
        raise CheckpointError(
            f"holds a pickled {checkpoint.class_name} object, not a dictionary of weights; save "
            "its state_dict() with the project it comes from"
        )
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"holds a {type(checkpoint).__name__}, not a dictionary of weights; save the model's "
            "state_dict()"
        )
    if replaced and numbers:
        logging.getLogger(__name__).info(
            "%s: objects of other classes were left out: %s", path, shorten_list(sorted(replaced))
        )
    return checkpoint


def _refuse_other_files(head: bytes) -> None:
    """Name the usual things that lie where weights should."""
    text = head.lstrip().lower()
    if not head:
        problem = "is empty; fetch it again"
    elif head.startswith(b"version https://git-lfs"):
        problem = "is a Git LFS pointer, not the weights; run `git lfs pull`"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        problem = "is a web page, not weights; open the download link in a browser"
    elif text.startswith((b'{"', b"{\n", b"{\r")):
        problem = "is a JSON text, not weights"
    elif head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        problem = "is a compressed archive; unpack it first"
    else:
        return
    raise CheckpointError(problem)


def _is_text(head: bytes) -> bool:
    return head.isascii() and all(x.isprintable() for x in head.decode("ascii").split())


def _load_safetensors(path: Path, head: bytes, size: int) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError("needs the safetensors library (pip install safetensors)") from error
    header = int.from_bytes(head[:8], "little")
    if header > min(size, _MAX_HEADER):
        raise CheckpointError(f"announces {header:,} bytes of names and shapes; {DAMAGED}")
    try:
        return load_file(path, device="cpu")
    except Exception as error:
        raise CheckpointError(f"is not a safetensors file ({error!s:.200}); {DAMAGED}") from error


def load_pkl(stream: BinaryIO) -> Any:
    """What a ``.pkl`` file holds, for Detectron2's own checkpointer.

    Tensors stand for arrays; objects of other classes are inert.

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
