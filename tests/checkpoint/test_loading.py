"""Files of every origin are read, and none of their code runs."""

import importlib
import io
import os
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from vfnet_yolof.checkpoint import CheckpointError, load_checkpoint
from vfnet_yolof.checkpoint.restricted import Unreadable


class Reduces:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __call__(self):  # pickle asks for a callable where one reduction calls another's result
        raise AssertionError("only its reduction is used")

    def __reduce__(self):
        if self.state is not None:
            return self.function, self.args, self.state
        return self.function, self.args


def weights() -> OrderedDict:
    return OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor(7))


def assert_weights(state: dict) -> None:
    assert torch.equal(state["a"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(state["b"], torch.tensor(7))


@pytest.fixture
def foreign_class(monkeypatch):
    """A class that exists while the file is written and cannot be imported when it is read."""
    module = types.ModuleType("not_installed_here")

    class HistoryBuffer:
        def __init__(self):
            self.values = np.arange(3.0)

        def __setstate__(self, state):
            raise AssertionError("foreign code ran")

    class ConfigDict(dict):
        pass

    for cls in (HistoryBuffer, ConfigDict):
        cls.__module__ = module.__name__
        cls.__qualname__ = cls.__name__
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_foreign_objects_beside_the_weights_are_left_out(
    tmp_path: Path, foreign_class, monkeypatch, zipped: bool
):
    path = tmp_path / "model.pth"
    checkpoint = {
        "state_dict": weights(),
        "message_hub": {"log": foreign_class.HistoryBuffer()},
        "meta": {"cfg": foreign_class.ConfigDict(a=1), "epoch": np.int64(12), "CLASSES": ("cat",)},
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, foreign_class.__name__)

    loaded = load_checkpoint(path)

    assert_weights(loaded["state_dict"])
    assert loaded["meta"]["CLASSES"] == ("cat",)
    assert loaded["meta"]["epoch"] == 12
    hub = loaded["message_hub"]["log"]
    assert isinstance(hub, Unreadable)
    assert hub.class_name == "not_installed_here.HistoryBuffer"
    assert isinstance(loaded["meta"]["cfg"], Unreadable)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_parameters_and_shared_storages(tmp_path: Path, zipped: bool):
    path = tmp_path / "model.pth"
    base = torch.arange(10.0)
    state = {
        "p": torch.nn.Parameter(base[2:5]),
        "view": base[::2],
        "half": base.half(),
        "n": np.ones(2),
    }
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["p"], torch.tensor([2.0, 3.0, 4.0]))
    assert not loaded["p"].requires_grad
    assert torch.equal(loaded["view"], torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0]))
    assert loaded["half"].dtype == torch.float16
    assert torch.equal(loaded["n"], torch.ones(2, dtype=torch.float64))


def test_tar_format(tmp_path: Path, monkeypatch):
    """The format of torch before version 0.1.10, written by hand."""

    def member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return "7" if isinstance(value, torch.Tensor) else None

    values = torch.arange(6.0)
    storages = pickle.dumps(1, 2) + pickle.dumps(("3", "cpu", torch.FloatStorage), 2)
    storages += struct.pack("<q", 6) + values.numpy().tobytes() + pickle.dumps([], 2)
    tensors = pickle.dumps(1, 2) + pickle.dumps(("7", "3", torch.FloatTensor), 2)
    tensors += struct.pack("<ii", 2, 0) + struct.pack("<2q2qq", 2, 3, 3, 1, 0)
    content = io.BytesIO()
    Pickler(content, 2).dump({"a": values})
    path = tmp_path / "old.pth"
    with tarfile.open(path, "w") as archive:
        member(archive, "sys_info", pickle.dumps({}, 2))
        member(archive, "pickle", content.getvalue().replace(b"X\x01\x00\x00\x007", b"K\x07"))
        member(archive, "storages", storages.replace(b"X\x01\x00\x00\x003", b"K\x03"))
        member(
            archive,
            "tensors",
            tensors.replace(b"X\x01\x00\x00\x007", b"K\x07").replace(
                b"X\x01\x00\x00\x003", b"K\x03"
            ),
        )
    assert torch.equal(load_checkpoint(path)["a"], values.reshape(2, 3))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_detectron2_pkl(tmp_path: Path, protocol: int):
    path = tmp_path / "R-50.pkl"
    arrays = {
        "conv1": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">f4"),
        "counter": np.array(5),
        "text": np.array(["not a number"]),
        "tensor": torch.ones(2),
    }
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    loaded = load_checkpoint(path)
    model = loaded["model"]
    assert model["conv1"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert model["fortran"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert model["big_endian"].tolist() == [0, 1, 2]
    assert model["counter"].item() == 5
    assert torch.equal(model["tensor"], torch.ones(2))
    assert isinstance(model["text"], Unreadable)
    assert loaded["matching_heuristics"] is True


def bombs(marker: Path) -> dict[str, object]:
    """Objects that create ``marker`` when unpickled by Python's own pickle."""
    nested = io.BytesIO()
    torch.save(Reduces(os.system, f"touch {marker}"), nested)
    command = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Reduces(os.system, f"touch {marker}"),
        "eval": Reduces(eval, command),
        "exec": Reduces(exec, command),
        "getattr": Reduces(Reduces(getattr, os, "system"), f"touch {marker}"),
        "import": Reduces(importlib.import_module, "this"),
        "torch.load": Reduces(torch.load, str(marker)),
        "nested torch.load": Reduces(torch.storage._load_from_bytes, nested.getvalue()),
        "map": Reduces(list, Reduces(map, eval, [command])),
        "setstate": Reduces(Reduces, os.getcwd, state={"function": Reduces(eval, command)}),
    }


BOMBS = sorted(bombs(Path("marker")))


class ModulePickler(pickle.Pickler):
    """Also pickles modules, by their name."""

    def reducer_override(self, value):
        if isinstance(value, types.ModuleType):
            return importlib.import_module, (value.__name__,)
        return NotImplemented


def dump_bomb(value: object) -> bytes:
    stream = io.BytesIO()
    ModulePickler(stream, protocol=4).dump(value)
    return stream.getvalue()


@pytest.mark.parametrize("container", ["pkl", "zip", "stream"])
@pytest.mark.parametrize("name", BOMBS)
def test_pickle_bombs_do_not_go_off(tmp_path: Path, name: str, container: str):
    marker = tmp_path / "marker"
    module = types.SimpleNamespace(
        Pickler=ModulePickler,
        dump=lambda value, stream, protocol: ModulePickler(stream, protocol).dump(value),
        dumps=lambda value, protocol=4: dump_bomb(value),
        __name__="pickle",
    )
    content = {"state_dict": weights(), "bomb": bombs(marker)[name]}
    path = tmp_path / "bomb.pth"
    if container == "pkl":
        path.write_bytes(dump_bomb(content))
    else:
        torch.save(
            content, path, pickle_module=module, _use_new_zipfile_serialization=container == "zip"
        )
    before = set(sys.modules)
    assert_weights(load_checkpoint(path)["state_dict"])
    assert not marker.exists()
    assert "this" not in set(sys.modules) - before


def test_the_bombs_are_real(tmp_path: Path):
    marker = tmp_path / "marker"
    for name in ("os.system", "eval", "getattr", "map", "nested torch.load"):
        pickle.loads(dump_bomb(bombs(marker)[name]))
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.parametrize(
    "opcodes",
    [
        # builtins.getattr(torch._utils._rebuild_tensor_v2, "__globals__")
        b"cbuiltins\ngetattr\n(ctorch._utils\n_rebuild_tensor_v2\nV__globals__\ntR.",
        # the same through a dotted name
        b"\x80\x04\x8c\x0ctorch._utils\x8c\x1e_rebuild_tensor_v2.__globals__\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x0ctesting.main\x93.",
        # _codecs.encode with a codec of the file's choice
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        # copyreg's extension table
        b"\x80\x02\x82\x01.",
    ],
    ids=["getattr", "dotted", "dotted numpy", "codec", "extension"],
)
def test_no_way_out_of_the_allowed_names(tmp_path: Path, opcodes: bytes):
    path = tmp_path / "sly.pkl"
    path.write_bytes(opcodes)
    with pytest.raises(CheckpointError, match="sly.pkl"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "target",
    [
        "ctorch._utils\n_rebuild_tensor_v2\n",
        "ctorch\nFloatStorage\n",
        "ccollections\nOrderedDict\n",
    ],
)
def test_build_cannot_change_what_the_reader_calls(tmp_path: Path, target: str):
    """BUILD with a pair sets attributes: on a shared function it would outlive the file."""
    function = torch._utils._rebuild_tensor_v2
    before = dict(vars(function)), function.__defaults__
    path = tmp_path / "build.pkl"
    path.write_bytes(f"c{target}\n".encode() + b"(N}V__defaults__\n(I1\ntstb.")
    with pytest.raises(CheckpointError, match="build.pkl"):
        load_checkpoint(path)
    assert (dict(vars(function)), function.__defaults__) == before
    assert not hasattr(torch.FloatStorage, "__defaults__")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "web page"),
        (b"\n <html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b'{"error": 404}', "JSON"),
        (b"\x1f\x8b\x08\x00", "unpack it first"),
        (b"PK\x03\x04 and no more", "cut short"),
        (b"some text", "cannot be read"),
        (pickle.dumps([1, 2]), "list, not a dictionary"),
        (pickle.dumps(Reduces(os.getcwd)), "holds a pickled posix.getcwd"),
    ],
)
def test_what_is_not_a_checkpoint_is_named(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_truncated_file(tmp_path: Path, zipped: bool):
    path = tmp_path / "cut.pth"
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(CheckpointError, match=r"cut\.pth.*fetch it again"):
        load_checkpoint(path)


def test_other_zip_files_and_torchscript(tmp_path: Path):
    archive = tmp_path / "photos.pth"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match="zip archive without weights"):
        load_checkpoint(archive)
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("model/data.pkl", "")
        stream.writestr("model/constants.pkl", "")
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_checkpoint(archive)


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        load_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)


def test_safetensors(tmp_path: Path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "model.safetensors"
    safetensors.save_file(dict(weights()), path)
    assert_weights(load_checkpoint(path))


def test_safetensors_without_the_library(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        load_checkpoint(path)
