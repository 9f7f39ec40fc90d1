"""Files that are written whole or not at all, and that a power cut does not take back."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

_CAUSES = {
    errno.ENOSPC: "the disk is full; make room, or write to another folder",
    errno.EDQUOT: "the disk quota is used up; make room, or write to another folder",
    errno.EFBIG: "it would be larger than the largest allowed file (ulimit -f)",
    errno.EROFS: "the file system is read-only; write to another folder",
    errno.EACCES: "no permission to write there; change it, or write to another folder",
    errno.EPERM: "no permission to write there; change it, or write to another folder",
    errno.ENOTDIR: "a file has the name of one of its folders; remove it, or use another folder",
    errno.EEXIST: "a file has the name of its folder; remove it, or use another folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EISDIR: "a folder has its name; remove it, or use another name",
    errno.EIO: "the disk reports an error; write to another one",
}


class FileWriteError(OSError):
    """A file could not be written; ``str()`` is one sentence with the path, the cause, the way out.

    What was there before is untouched, and nothing half written is left. Has the ``errno`` and
    ``filename`` of the error that it stands for.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(error.errno, error.strerror, os.fspath(path))
        cause = _CAUSES.get(error.errno or 0) or error.strerror or str(error)
        self._sentence = f"{path} cannot be written: {cause}."

    def __str__(self) -> str:
        return self._sentence


def cache_dir() -> Path:
    """Of what can be made or fetched again.

    ``$VFNET_YOLOF_CACHE``, or ``vfnet_yolof`` in the user's cache folder.
    """
    if own := os.environ.get("VFNET_YOLOF_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "vfnet_yolof"


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Call ``write`` with a binary file that becomes ``path`` only once it is complete on disk.

    Folders that are missing are made. File and folder are on the disk (fsync) when this returns.

    Raises:
        FileWriteError: the disk is full, the folder read-only and the like. Other errors of
            ``write`` pass. Either way what ``path`` was before is untouched.
    """
    with replacing(path) as scratch, _Remembering(io.FileIO(scratch, "wb")) as file:
        try:
            write(file)
        except Exception as error:
            # torch.save turns an error of the disk into one that does not say so.
            if file.error is not None:
                raise file.error from error
            raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside ``path``, with its suffix, for writers that open a file themselves.

    What was written there becomes ``path``, with fsync of file and folder, when the block ends
    without an error; else it is deleted. Raises as :func:`write_atomically`.
    """
    path = Path(path)
    # Ends in the name's own suffix, by which image and video writers choose the format.
    scratch = path.with_name(f".{uuid.uuid4().hex[:8]}.writing.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        _sync(scratch)
        os.replace(scratch, path)
        sync_folder(path.parent)
    except OSError as error:
        if _is_about(error, scratch, path):
            raise FileWriteError(path, error) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Unfinished files of a process that was killed while it wrote into ``folder``."""
    return sorted(Path(folder).glob(f".{'[0-9a-f]' * 8}.writing.*"))


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make a rename in ``folder`` last, where the file system can be asked to."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_about(error: OSError, scratch: Path, path: Path) -> bool:
    """False where it tells of what is read meanwhile: another file, or a connection."""
    if error.filename is None:
        return error.errno in _CAUSES
    return not isinstance(error, FileWriteError) and Path(error.filename) in (
        scratch,
        *path.parents,
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Remembering(io.BufferedWriter):
    """A binary file that keeps the first error of a write."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            raise
