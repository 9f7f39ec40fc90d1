"""The formats of ``torch.save``, read so that nothing is allocated before it is known to exist.

``torch.load`` checks neither the checksums of its zip files nor that a storage is as long as the
pickle says, and allocates what older formats announce. Here the pickle is read first, without any
numbers (:mod:`.restricted`); then what it announces is compared with what the file has; then the
numbers are read, and the checksum of each piece with them.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .pickles import BoundedStream, Budget, Unreadable
from .restricted import RestrictedUnpickler, StorageRecord, StorageType, TensorRecord, plain
from .rules import CheckpointError

LEGACY_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # opens torch files of versions before 1.6
_MAGIC_NUMBER, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_PIECE = 1 << 20
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The list of members is read as a whole; 5,000 tensors have one of half a megabyte.
_MAX_DIRECTORY = 16 << 20
DAMAGED = "the file is cut short or damaged; fetch it again"


def read_torch(
    stream: io.BufferedIOBase,
    size: int,
    budget: Budget,
    replaced: set[str],
    *,
    numbers: bool = True,
) -> Any:
    """What a zip, stream or tar file of ``torch.save`` holds, on the CPU; adds to ``replaced``.

    Args:
        numbers: if False, tensors of zip files are left as records of where they are, and their
            checksums are not compared.

    Raises:
        CheckpointError: entry and what is wrong with it; other exceptions for damaged files.
    """
    head = stream.read(512)
    stream.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(stream, budget, replaced, numbers)
    if is_tar(head):
        return _read_tar(stream, budget, replaced)
    return _read_stream(stream, size, budget, replaced)


def is_torch_file(head: bytes) -> bool:
    """True for torch's zip, stream and tar formats, False for a plain pickle."""
    return head.startswith(b"PK\x03\x04") or is_tar(head) or LEGACY_MAGIC in head[:64]


def is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


class _SmallReads(io.RawIOBase):
    """A file for zipfile and tarfile that hands out no more than ``_MAX_DIRECTORY`` at once."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        if count > _MAX_DIRECTORY:
            raise CheckpointError(f"announces a list of {count:,} bytes of members; {DAMAGED}")
        return self._stream.read(count)


# --- zip: torch 1.6 and later ---------------------------------------------------------------------


def _read_zip(stream: io.BufferedIOBase, budget: Budget, replaced: set[str], numbers: bool) -> Any:
    try:
        archive = zipfile.ZipFile(_SmallReads(stream))
    except (zipfile.BadZipFile, EOFError, struct.error) as error:
        raise CheckpointError(f"no list of members at its end; {DAMAGED}") from error
    with archive:
        members = _members(archive, budget)
        root = next(name for name in members if name.rpartition("/")[2] == "data.pkl")
        root = root.removesuffix("data.pkl")
        swapped = f"{root}byteorder" in members and _content(archive, members[f"{root}byteorder"])
        storages: dict[str, StorageRecord] = {}

        def persistent_load(saved: Any) -> Any:
            kind, storage_type, key, _, count = saved
            if kind != "storage" or not isinstance(key, str):
                raise CheckpointError(f"{root}data.pkl: refers to no storage; {DAMAGED}")
            if not isinstance(storage_type, StorageType):
                return Unreadable()
            if key not in storages:
                member = members.get(f"{root}data/{key}")
                storages[key] = _in_zip(
                    archive, member, storage_type.dtype, count, budget, swapped == b"big"
                )
            if (storages[key].dtype, storages[key].count) != (storage_type.dtype, count):
                raise CheckpointError(f"{root}data/{key}: two tensors disagree on it; {DAMAGED}")
            return storages[key]

        info = members[f"{root}data.pkl"]
        _content(archive, info, keep=False)  # a wrong checksum explains whatever else is wrong
        with archive.open(info) as pickled:
            source = BoundedStream(pickled, info.file_size)
            found = RestrictedUnpickler(source, budget, replaced, persistent_load).load()
        if not numbers:
            return found
        later = {f"{root}data/{key}" for key in storages}  # read, and compared, by plain()
        for name, other in members.items():
            if name not in later:
                _content(archive, other, keep=False)
        return plain(found)


def _members(archive: zipfile.ZipFile, budget: Budget) -> dict[str, zipfile.ZipInfo]:
    """Members by name, none of them unpacked.

    Raises:
        CheckpointError: not a checkpoint, or one that torch does not write.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename in members:
            raise CheckpointError(f"{info.filename[:100]}: is there twice; {DAMAGED}")
        if info.flag_bits & 1 or info.compress_type not in _PACKED:
            raise CheckpointError(
                f"{info.filename[:100]}: is encrypted, or packed as torch does not; unpack it and "
                "save it again"
            )
        budget.spend("the archive's members, unpacked,", info.file_size)
        members[info.filename] = info
    names = {name.rpartition("/")[2] for name in members}
    if "constants.pkl" in names:
        raise CheckpointError(
            "is a TorchScript program, not a checkpoint; use the file it was made from"
        )
    if "data.pkl" not in names:
        raise CheckpointError("is a zip archive without weights; unpack it first")
    return members


def _in_zip(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo | None,
    dtype: torch.dtype,
    count: Any,
    budget: Budget,
    swapped: bool,
) -> StorageRecord:
    record = StorageRecord(dtype, count, budget)
    if member is None or member.file_size != record.nbytes:
        has = "is not there" if member is None else f"has {member.file_size:,} bytes"
        name = "a storage" if member is None else member.filename
        raise CheckpointError(f"{name}: {has}, {record.nbytes:,} are announced; {DAMAGED}")

    def read() -> torch.Tensor:
        values = torch.empty(record.nbytes, dtype=torch.uint8)
        target = values.numpy().data
        position = 0
        for piece in _pieces(archive, member):
            target[position : position + len(piece)] = piece
            position += len(piece)
        if swapped:
            width = dtype.itemsize // (2 if dtype.is_complex else 1)
            values = values.view(-1, width).flip(1).reshape(-1)
        return values

    record.read = read
    return record


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, keep: bool = True) -> bytes:
    pieces = [piece if keep else b"" for piece in _pieces(archive, member)]
    return b"".join(pieces)


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Content piece by piece; zipfile compares the checksum after the last one."""
    try:
        with archive.open(member) as stream:
            while piece := stream.read(_PIECE):
                yield piece
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _broken(member.filename, error) from error


def _broken(name: str, error: Exception) -> CheckpointError:
    if "CRC" not in str(error):
        return CheckpointError(f"{name[:100]}: cannot be unpacked ({error}); {DAMAGED}")
    return CheckpointError(
        f"{name[:100]}: its checksum (CRC-32) is not that of its content: bits were flipped or a "
        "block was lost; fetch the file again, or use the checkpoint before it (if it was written "
        "with torch.serialization.set_crc32_options(False), load and save it with torch)"
    )


# --- one stream of pickles and numbers: torch 0.1.10 to 1.5 ---------------------------------------


def _read_stream(stream: io.BufferedIOBase, size: int, budget: Budget, replaced: set[str]) -> Any:
    source = BoundedStream(stream, size)
    storages: dict[str, StorageRecord] = {}

    def persistent_load(saved: Any) -> Any:
        if isinstance(saved, tuple) and saved and saved[0] == "module":
            return saved[1]
        kind, storage_type, key, _, count, *view = saved
        if kind != "storage" or not isinstance(key, str):
            raise CheckpointError(f"refers to no storage; {DAMAGED}")
        if not isinstance(storage_type, StorageType):
            return Unreadable()
        if key not in storages:
            storages[key] = StorageRecord(storage_type.dtype, count, budget)
        if view and view[0] is not None:
            _, offset, length = view[0]
            return _part_of(storages[key], offset, length, budget)
        return storages[key]

    def load(persistent: Callable[[Any], Any] | None = None) -> Any:
        return RestrictedUnpickler(source, budget, replaced, persistent).load()

    if load() != _MAGIC_NUMBER or load() != _PROTOCOL:
        raise CheckpointError(f"is of an unknown version of torch's format; {DAMAGED}")
    load()  # byte order and sizes of the machine; numbers are stored little-endian on all of them
    found = load(persistent_load)
    for key in load():
        if key not in storages:
            raise CheckpointError(f"storage {key!r:.100}: no tensor refers to it; {DAMAGED}")
        _place(source, stream, storages[key], f"storage {key}")
    return plain(found)


def _place(
    source: BoundedStream, stream: io.BufferedIOBase, record: StorageRecord, name: str
) -> None:
    """The number of elements and the elements follow in the file: remember where, and pass on."""
    (count,) = struct.unpack("<q", source.read(8))
    if count != record.count:
        raise CheckpointError(
            f"{name}: has {count} elements, {record.count} are announced; {DAMAGED}"
        )
    position = source.skip(record.nbytes)

    def read() -> torch.Tensor:
        values = torch.empty(record.nbytes, dtype=torch.uint8)
        here = stream.tell()
        stream.seek(position)
        done = stream.readinto(values.numpy().data)
        stream.seek(here)
        if done != record.nbytes:
            raise EOFError("the file ends early")
        return values

    record.read = read


def _part_of(root: StorageRecord, offset: Any, count: Any, budget: Budget) -> StorageRecord:
    """Old files have storages that are parts of others; offset and count in elements."""
    part = StorageRecord(root.dtype, count, budget)
    first = offset * root.dtype.itemsize
    if type(offset) is not int or not 0 <= first <= root.nbytes - part.nbytes:
        raise CheckpointError(f"has a storage that begins outside of another; {DAMAGED}")
    part.read = lambda: root.values()[first : first + part.nbytes]
    return part


# --- tar: torch before 0.1.10 ---------------------------------------------------------------------


def _read_tar(stream: io.BufferedIOBase, budget: Budget, replaced: set[str]) -> Any:
    with tarfile.open(fileobj=_SmallReads(stream), mode="r:") as archive:
        members = {member.name: member for member in archive.getmembers()}
    if not {"pickle", "storages", "tensors"} <= members.keys():
        raise CheckpointError("is a tar archive without weights; unpack it first")
    if not all((m.isfile() and not m.issparse()) or m.isdir() for m in members.values()):
        raise CheckpointError("has links or holes among its members, which no checkpoint needs")

    def source(name: str) -> BoundedStream:
        stream.seek(members[name].offset_data)
        return BoundedStream(stream, members[name].size)

    def load(part: BoundedStream, persistent: Callable[[Any], Any] | None = None) -> Any:
        return RestrictedUnpickler(part, budget, replaced, persistent).load()

    storages: dict[Any, StorageRecord] = {}
    part = source("storages")
    # The number of elements is written by torch beside them and not in the pickle.
    for _ in range(load(part)):
        key, _, storage_type = load(part)
        start = part.read(8)
        record = StorageRecord(storage_type.dtype, struct.unpack("<q", start)[0], budget)
        stream.seek(-8, 1)
        part.left += 8
        _place(part, stream, record, f"storage {key!r:.100}")
        storages[key] = record
    for target, root, offset, count in load(part):
        storages[target] = _part_of(storages[root], offset, count, budget)

    tensors: dict[Any, TensorRecord] = {}
    part = source("tensors")
    for _ in range(load(part)):
        key, storage, _ = load(part)
        (dimensions, _) = struct.unpack("<ii", part.read(8))
        if not 0 <= dimensions <= 64:
            raise CheckpointError(f"has a tensor of {dimensions} dimensions; {DAMAGED}")
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", part.read(8 * (2 * dimensions + 1)))
        size, stride = numbers[:dimensions], numbers[dimensions:-1]
        record = storages[storage]
        tensors[key] = TensorRecord(record, numbers[-1], size, stride, record.dtype, budget)

    def persistent_load(saved: Any) -> Any:
        return saved[0] if isinstance(saved, tuple) else tensors[int(saved)]

    return plain(load(source("pickle"), persistent_load))
