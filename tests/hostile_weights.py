"""Weight files that must be refused, and every way in that must refuse them.

As a program it puts each file to each way in and prints, as JSON, what was answered, in how many
seconds of computing, and by how many bytes the memory of the process grew.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from ways_in import Ways, tiny_config

try:
    from numpy._core.numeric import _frombuffer
except ImportError:  # NumPy 1
    from numpy.core.numeric import _frombuffer

State = dict[str, Tensor]


class Hostile(NamedTuple):
    """write: (path, sound weights) -> None; says: what the refusal must tell, a regex."""

    write: Callable[[Path, State], None]
    says: str
    suffix: str = ".pth"


def checkpoint(state: State, **others: Any) -> dict[str, Any]:
    """A file that every way in takes; a resumed training has a state beside the weights."""
    return {"model": state, "trainer": {}, "iteration": 3, **others}


def with_values(change: Callable[[State], None]) -> Callable[[Path, State], None]:
    def write(path: Path, state: State) -> None:
        state = {name: tensor.clone() for name, tensor in state.items()}
        change(state)
        torch.save(checkpoint(state), path)

    return write


def _weight(state: State) -> str:
    """A convolution of the backbone."""
    return next(k for k in state if k.endswith("res3.0.conv1.weight"))


def _nan_layer(state: State) -> None:
    state[_weight(state)][:] = float("nan")


def _one_infinity(state: State) -> None:
    state[_weight(state)].view(-1)[7] = float("inf")


def _integers(state: State) -> None:
    state[_weight(state)] = state[_weight(state)].long()


def _complex(state: State) -> None:
    state[_weight(state)] = state[_weight(state)].to(torch.complex64)


def _beyond_float32(state: State) -> None:
    state[_weight(state)] = torch.full_like(state[_weight(state)], 1e300, dtype=torch.float64)


def _eight_bits(state: State) -> None:
    state[_weight(state)] = state[_weight(state)].to(torch.float8_e4m3fn)


def _sparse(state: State) -> None:
    state[_weight(state)] = state[_weight(state)].to_sparse()


def _expanded(state: State) -> None:
    state["head.extra"] = torch.zeros(1).expand(2**37)  # 512 GB in float32


def _expanded_and_shared(state: State) -> None:
    tensor = torch.zeros(1000, 1000)
    state.update({f"head.extra{i}": tensor for i in range(1000)})  # 4 GB where each is copied


def damaged(change: Callable[[bytearray, int], None]) -> Callable[[Path, State], None]:
    """``change`` gets the bytes of a sound file and the position of a weight in them."""

    def write(path: Path, state: State) -> None:
        torch.save(checkpoint(state), path)
        data = bytearray(path.read_bytes())
        start = data.index(state[_weight(state)].numpy().tobytes())
        change(data, start)
        path.write_bytes(data)

    return write


def _flip(data: bytearray, start: int) -> None:
    data[start + 5] ^= 0x10


def _zero_block(data: bytearray, start: int) -> None:
    data[start : start + 512] = bytes(512)


def _flip_pickle(data: bytearray, start: int) -> None:
    data[data.index(b"running_mean")] ^= 1  # a name would become another one


def _cut(data: bytearray, start: int) -> None:
    del data[start:]


def repacked(
    change: Callable[[zipfile.ZipFile, str, bytes], None],
) -> Callable[[Path, State], None]:
    """``change`` writes each member of a sound file into a new archive."""

    def write(path: Path, state: State) -> None:
        stream = io.BytesIO()
        torch.save(checkpoint(state), stream)
        with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                change(target, name, source.read(name))

    return write


def _short_storage(target: zipfile.ZipFile, name: str, data: bytes) -> None:
    """The pickle goes on announcing what the file no longer has: torch.load reads beyond it."""
    target.writestr(name, data[: len(data) // 2] if "/data/" in name else data)


def _zip_bomb(path: Path, state: State) -> None:
    """Half a gigabyte of zeros, packed."""
    stream = io.BytesIO()
    torch.save(checkpoint({**state, "head.extra": torch.zeros(125 << 20)}), stream)
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), zipfile.ZIP_DEFLATED, compresslevel=1)


def _member_twice(path: Path, state: State) -> None:
    torch.save(checkpoint(state), path)
    with zipfile.ZipFile(path, "a") as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        archive.writestr(name, pickle.dumps(checkpoint({}), protocol=2))


def as_bytes(content: bytes) -> Callable[[Path, State], None]:
    return lambda path, state: path.write_bytes(content)  # type: ignore[return-value]


def _huge_legacy_storage(path: Path, state: State) -> None:
    torch.save(checkpoint(state), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    count = state[_weight(state)].numel()
    values = state[_weight(state)].numpy().tobytes()
    position = data.index(struct.pack("<q", count) + values[:64])
    path.write_bytes(data[:position] + struct.pack("<q", 2**31) + data[position + 8 :])


def _announced_legacy_storage(path: Path, state: State) -> None:
    """The same number twice: in the pickle, and before the values that are not there."""
    count = struct.pack("<q", 2**40)
    torch.save(checkpoint({"a.weight": torch.zeros(3)}), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes().replace(b"K\x03Nt", b"\x8a\x08" + count + b"Nt")
    position = data.index(struct.pack("<q", 3) + bytes(12))
    path.write_bytes(data[:position] + count + bytes(12))


def _tar_with_huge_storage(path: Path, state: State) -> None:
    def member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))

    storages = pickle.dumps(1, 2) + pickle.dumps((3, "cpu", torch.FloatStorage), 2)
    storages += struct.pack("<q", 2**31) + bytes(64) + pickle.dumps([], 2)
    with tarfile.open(path, "w") as archive:
        member(archive, "sys_info", pickle.dumps({}, 2))
        member(archive, "pickle", pickle.dumps({}, 2))
        member(archive, "storages", storages)
        member(archive, "tensors", pickle.dumps(0, 2))


def _safetensors(change: Callable[[State], None]) -> Callable[[Path, State], None]:
    def write(path: Path, state: State) -> None:
        from safetensors.torch import save_file

        state = {name: tensor.clone() for name, tensor in state.items()}
        change(state)
        save_file(state, path)

    return write


def _hash_bomb() -> bytes:
    """A tuple of a tuple of ... twice each, as a key: hashing it visits 2 ** 60 leaves."""
    nested = b"K\x01" + b"".join(b"2\x86" for _ in range(60))
    return b"\x80\x02}" + nested + b"K\x01s."


def _copies(function: str, items: str, count: int = 20_000) -> bytes:
    """One long list, given to a function again and again."""
    start = b"\x80\x02]q\x00(" + items.encode("latin1") * count + b"e0]("
    call = f"c{function}\n".encode() + b"h\x00\x85R"
    return start + call * 4000 + b"e."


class _SharedArray:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return _frombuffer, (self.data, np.dtype("u1"), (len(self.data),), "C")


def _arrays_of_shared_bytes() -> bytes:
    """A megabyte, and a thousand arrays that are made of it."""
    data = bytes(1 << 20)
    return pickle.dumps({f"a{i}": _SharedArray(data) for i in range(1000)}, protocol=5)


def _text_of_wide_letters(path: Path, state: State) -> None:
    text = b"a" * (140 << 20) + "\N{GRINNING FACE}".encode()
    start = b"\x80\x02}X\x01\x00\x00\x00tX"
    path.write_bytes(start + struct.pack("<I", len(text)) + text + b"s.")


HOSTILE: dict[str, Hostile] = {
    "a layer of NaN": Hostile(
        with_values(_nan_layer), r"res3\.0\.conv1\.weight \(\d+ of|conv1.weight: \d+ of"
    ),
    "one infinity": Hostile(with_values(_one_infinity), r"res3\.0\.conv1\.weight(: 1| \(1) of"),
    "int64 weights": Hostile(with_values(_integers), r"conv1\.weight \(int64\)"),
    "complex weights": Hostile(with_values(_complex), r"conv1\.weight \(complex64\)"),
    "weights beyond float32": Hostile(with_values(_beyond_float32), r"conv1\.weight"),
    "weights of eight bits": Hostile(with_values(_eight_bits), r"conv1\.weight \(float8_e4m3fn\)"),
    "sparse weights": Hostile(with_values(_sparse), r"conv1\.weight.*_rebuild_sparse_tensor"),
    "an expanded tensor of 512 GB": Hostile(with_values(_expanded), r"would take 549\.8 GB"),
    "a tensor under 1000 names": Hostile(with_values(_expanded_and_shared), "would take .* GB"),
    "a flipped bit": Hostile(damaged(_flip), r"/data/\d+: its checksum"),
    "a zeroed block": Hostile(damaged(_zero_block), r"/data/\d+: its checksum"),
    "a flipped bit in a name": Hostile(damaged(_flip_pickle), r"data\.pkl: its checksum"),
    "a file cut short": Hostile(damaged(_cut), "cut short"),
    "storages shorter than announced": Hostile(repacked(_short_storage), "bytes, .* are announced"),
    "a zip bomb": Hostile(_zip_bomb, "members, unpacked, would take"),
    "a member twice": Hostile(_member_twice, "is there twice"),
    "a legacy storage of 8 GB": Hostile(_huge_legacy_storage, "elements, .* are announced"),
    "a legacy storage of 4 TB": Hostile(_announced_legacy_storage, "would take 4398"),
    "a tar storage of 8 GB": Hostile(_tar_with_huge_storage, "would take"),
    "a memo of 2 GB in nine bytes": Hostile(
        as_bytes(b"\x80\x02}r" + struct.pack("<I", 1 << 27) + b"."), "no model weights", ".pkl"
    ),
    "a bytearray of 2 GB in nine bytes": Hostile(
        as_bytes(b"\x96" + struct.pack("<Q", 1 << 31)), "announces 2,147,483,648 bytes", ".pkl"
    ),
    "bytes of 2 GB": Hostile(
        as_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 31)), "announces", ".pkl"
    ),
    "text of 2 GB": Hostile(
        as_bytes(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 31)), "announces", ".pkl"
    ),
    "a frame of 2 GB": Hostile(
        as_bytes(b"\x80\x04\x95" + struct.pack("<Q", 1 << 31)), "announces", ".pkl"
    ),
    "a number of 2 GB": Hostile(
        as_bytes(b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1)), "a number of", ".pkl"
    ),
    "a key that hashes for ever": Hostile(as_bytes(_hash_bomb()), "has a tuple as a key", ".pkl"),
    "a set copied 4000 times": Hostile(
        as_bytes(_copies("builtins\nset", "K\x01")), "more than 1,000,000 objects", ".pkl"
    ),
    "a dictionary copied 4000 times": Hostile(
        as_bytes(_copies("collections\nOrderedDict", "K\x01K\x02\x86")),
        "more than 1,000,000 objects",
        ".pkl",
    ),
    "arrays that share their bytes": Hostile(
        as_bytes(_arrays_of_shared_bytes()), "arrays would take", ".pkl"
    ),
    "wide letters": Hostile(_text_of_wide_letters, "text would take", ".pkl"),
    "three million objects": Hostile(
        as_bytes(b"\x80\x02(" + b"\x8f" * 3_000_000 + b"t."), "more than 1,000,000 objects", ".pkl"
    ),
    "thousands of classes": Hostile(
        as_bytes(b"\x80\x02(" + b"".join(b"ca\nb%d\n" % i for i in range(5000)) + b"t."),
        "names more than 1000 classes",
        ".pkl",
    ),
    "NaN in safetensors": Hostile(_safetensors(_nan_layer), r"conv1\.weight", ".safetensors"),
    "int64 in safetensors": Hostile(_safetensors(_integers), r"\(int64\)", ".safetensors"),
    "a safetensors header of 2 GB": Hostile(
        as_bytes(struct.pack("<Q", 1 << 31) + b"{}"), "announces", ".safetensors"
    ),
    "an empty file": Hostile(as_bytes(b""), "is empty"),
    "text": Hostile(as_bytes(b"101\n"), "it is a text"),
}

# These take seconds at each way in.
HEAVY = (
    *("a zip bomb", "wide letters", "three million objects"),
    *("a set copied 4000 times", "a dictionary copied 4000 times"),
)
# What a training cannot be resumed from, whatever else is wrong with it, is refused for that.
NO_TRAINING_STATE = "holds no training state"


def sound_state() -> State:
    from detectron2.config import instantiate

    torch.manual_seed(0)
    return dict(OrderedDict(instantiate(tiny_config().model).state_dict()))


def _memory(name: str) -> int:
    """VmRSS (now) or VmHWM (highest since it was last asked) of this process, in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if name in x)
    return int(line.split()[1]) * 1024


def main(names: list[str]) -> None:
    from detectron2.config import instantiate

    model = instantiate(tiny_config().model)
    state = sound_state()
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        ways = Ways(model, Path(folder))
        good = Path(folder) / "good.pth"
        torch.save(checkpoint(state), good)
        for way in ("predict", "evaluate", "init_from", "average", "zoo"):
            ways.load(way, good)  # what is imported and allocated at the first call
        for name in names or HOSTILE:
            path = Path(folder) / f"hostile{HOSTILE[name].suffix}"
            HOSTILE[name].write(path, state)
            for way in Ways.names:
                Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
                before, start = _memory("VmRSS"), time.process_time()
                try:
                    ways.load(way, path)
                    answer = "LOADED"
                except Exception as error:
                    answer = f"{type(error).__name__}: {error}".replace(folder, "")
                answers.append(
                    {
                        "file": name,
                        "bytes": path.stat().st_size,
                        "way": way,
                        "answer": answer,
                        "seconds": round(time.process_time() - start, 2),
                        "grown": _memory("VmHWM") - before,
                    }
                )
            path.unlink()
    json.dump(answers, sys.stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
