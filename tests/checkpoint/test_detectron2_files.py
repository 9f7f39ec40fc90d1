"""Detectron2's checkpointer, which the yaml files use, and .pkl files that hold code."""

import importlib.util
import os
import pickle
import shutil
import struct
from pathlib import Path

import detectron2.checkpoint
import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn
from vfnet_yolof.checkpoint import CheckpointError
from vfnet_yolof.installer import install as installer
from vfnet_yolof.installer.repairs import REPAIRS

MODULE = "detectron2/checkpoint/detection_checkpoint.py"


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def write(path: Path, **others: object) -> np.ndarray:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = {"model": {"weight": weight, "bias": np.ones(2)}, "__author__": "us", **others}
    path.write_bytes(pickle.dumps(content, protocol=2))
    return weight


@pytest.fixture(scope="module")
def repaired(tmp_path_factory):
    """The module of the installed Detectron2 after the installer's repairs, under another name."""
    root = tmp_path_factory.mktemp("source")
    path = root / MODULE
    path.parent.mkdir(parents=True)
    shutil.copy(Path(detectron2.checkpoint.__file__).with_name(path.name), path)
    if "_ArrayUnpickler" not in path.read_text():  # an installation from before this repair
        installer.apply_repairs(root, [repair for repair in REPAIRS if repair.path == MODULE])
    name = "detectron2.checkpoint.repaired_detection_checkpoint"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["with the package", "repaired"])
def checkpointer(request, repaired):
    return DetectionCheckpointer if request.param != "repaired" else repaired.DetectionCheckpointer


def test_arrays_are_read(checkpointer, tmp_path: Path) -> None:
    weight = write(tmp_path / "model.pkl")
    model = nn.Linear(3, 2)
    checkpointer(model).load(str(tmp_path / "model.pkl"))
    assert np.array_equal(model.weight.detach(), weight)
    assert model.bias.tolist() == [1, 1]


def test_code_is_left_out_with_the_package(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    write(tmp_path / "bomb.pkl", optimizer=Runs(f"touch {marker}"))
    DetectionCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / "bomb.pkl"))
    assert not marker.exists()


def test_code_is_refused_by_the_repaired_copy(repaired, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    write(tmp_path / "bomb.pkl", optimizer=Runs(f"touch {marker}"))
    with pytest.raises(pickle.UnpicklingError, match=f"names {os.system.__module__}.system"):
        repaired.DetectionCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / "bomb.pkl"))
    assert not marker.exists()


def test_the_bomb_is_real(tmp_path: Path) -> None:
    write(tmp_path / "bomb.pkl", optimizer=Runs(f"touch {tmp_path / 'marker'}"))
    pickle.loads((tmp_path / "bomb.pkl").read_bytes())
    assert (tmp_path / "marker").exists()


def test_the_memory_is_bounded_with_the_package(tmp_path: Path) -> None:
    path = tmp_path / "nine.pkl"
    path.write_bytes(b"\x96" + struct.pack("<Q", 1 << 31))
    with pytest.raises(CheckpointError, match=r"nine\.pkl.*announces 2,147,483,648 bytes"):
        DetectionCheckpointer(nn.Linear(3, 2)).load(str(path))


def test_arrays_of_objects_are_refused_by_the_repaired_copy(repaired, tmp_path: Path) -> None:
    write(tmp_path / "objects.pkl", extra=np.array([{}], dtype=object))
    with pytest.raises(pickle.UnpicklingError, match="something else than numbers"):
        repaired.DetectionCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / "objects.pkl"))


def test_torch_files_are_read_as_before(checkpointer, tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    other = nn.Linear(3, 2)
    checkpointer(other).load(str(tmp_path / "model.pth"))
    assert torch.equal(other.weight, model.weight)
