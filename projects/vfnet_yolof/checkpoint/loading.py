"""Reading checkpoint files from anywhere without running any of their code."""

from __future__ import annotations

import logging
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from .restricted import Unreadable, load_pickle, load_torch, plain
from .rules import CheckpointError, shorten_list

_LEGACY_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # opens torch files of versions before 1.6
# What weights_only=True raises for foreign classes, old formats and damaged files, depending on
# torch's version.
_REFUSALS = (
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
)
_DAMAGED = "the file is cut short or damaged; fetch it again"


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read torch files of any age, ``.safetensors`` and Detectron2's ``.pkl`` to the CPU.

    Tensors, arrays (they become tensors) and plain Python values are read. Objects of any other
    class, which ``torch.load(weights_only=True)`` would refuse, come back as inert
    :class:`~.restricted.Unreadable`; no code of the file runs. The result is what the file holds,
    not yet unwrapped: see :func:`~.convert.find_state_dict`.

    Raises :class:`FileNotFoundError`, or :class:`CheckpointError` that names the file and what is
    wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the checkpoint file in it")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint file {path} does not exist")
    with open(path, "rb") as stream:
        head = stream.read(1024)
    _refuse_other_files(path, head)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        checkpoint = _load(path, head)
    except CheckpointError:
        raise
    except Exception as error:
        # Whatever a damaged or hostile file makes the readers raise, the user needs its name and a
        # reason.
        reason = str(error).splitlines()[0] if str(error) else "no further message"
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}: {reason}); {_DAMAGED}"
        ) from error
    if isinstance(checkpoint, Unreadable):
        raise CheckpointError(
            f"{path}: holds a pickled {checkpoint.class_name} object, not a dictionary of "
            "weights; save its state_dict() with the project it comes from"
        )
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{path}: holds a {type(checkpoint).__name__}, not a dictionary of weights"
        )
    return checkpoint


def _load(path: Path, head: bytes) -> Any:
    replaced: set[str] = set()
    if _is_torch_file(path, head):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except _REFUSALS as refused:
            logging.getLogger(__name__).debug("%s: weights_only refused it: %s", path, refused)
        checkpoint = plain(load_torch(path, replaced))
    else:
        with open(path, "rb") as stream:
            checkpoint = plain(load_pickle(stream, replaced))
    if replaced:
        logging.getLogger(__name__).info(
            "%s: objects of other classes were left out: %s", path, shorten_list(sorted(replaced))
        )
    return checkpoint


def _is_torch_file(path: Path, head: bytes) -> bool:
    """True for torch's zip, stream and tar formats, False for a plain pickle."""
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path}: {_DAMAGED}")
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in names:
            raise CheckpointError(
                f"{path}: is a TorchScript program, not a checkpoint; use the file it was made from"
            )
        if "data.pkl" not in names:
            raise CheckpointError(f"{path}: is a zip archive without weights; unpack it first")
        return True
    if head[257:262] == b"ustar":
        with tarfile.open(path) as archive:
            members = archive.getmembers()
        if not {"pickle", "storages", "tensors"} <= {m.name for m in members}:
            raise CheckpointError(f"{path}: is a tar archive without weights; unpack it first")
        if not all(m.isfile() or m.isdir() for m in members):
            raise CheckpointError(f"{path}: has links among its members, which no checkpoint needs")
        return True
    return _LEGACY_MAGIC in head[:64]


def _refuse_other_files(path: Path, head: bytes) -> None:
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
    raise CheckpointError(f"{path}: {problem}")


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(
            f"{path}: needs the safetensors library (pip install safetensors)"
        ) from error
    try:
        return load_file(path, device="cpu")
    except Exception as error:
        raise CheckpointError(f"{path}: is not a safetensors file ({error}); {_DAMAGED}") from error
