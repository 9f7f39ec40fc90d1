"""Files are written whole or not at all, stay after a power cut, and errors say what happened."""

import errno
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from vfnet_yolof.utils.files import FileWriteError, leftovers, replacing, write_atomically


def test_file_and_folder_are_synced_in_this_order(tmp_path: Path, monkeypatch):
    done = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(handle):
        done.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{handle}'))[-8:]}")
        real_sync(handle)

    def replace(source, target):
        done.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    folder = tmp_path / "a_folder"
    write_atomically(folder / "file.pth", lambda file: file.write(b"x"))
    assert done == ["sync file.pth", "rename", "sync a_folder"]


def test_missing_folders_are_made(tmp_path: Path):
    write_atomically(tmp_path / "a" / "b" / "file", lambda file: file.write(b"x"))
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("folder", "file", "expected"),
    [
        ("run/model.pth", None, "a folder has its name"),
        (None, "run", "a file has the name of its folder"),
        (None, "", "a file has the name of one of its folders"),
    ],
)
def test_what_is_in_the_way_is_said(tmp_path: Path, folder, file, expected: str):
    path = tmp_path / "out" / "run" / "model.pth"
    if folder is not None:
        (tmp_path / "out" / folder).mkdir(parents=True)
    elif file:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / file).touch()
    else:
        (tmp_path / "out").touch()
    with pytest.raises(FileWriteError) as caught:
        write_atomically(path, lambda file: file.write(b"x"))
    assert str(caught.value).startswith(f"{path} cannot be written: {expected}")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*writing*"))


def write_plain(path: Path) -> None:
    write_atomically(path, lambda file: file.write(bytes(1 << 20)))


def write_with_torch(path: Path) -> None:
    write_atomically(path, lambda file: torch.save({"a": torch.zeros(1 << 18)}, file))


def write_by_path(path: Path) -> None:
    with replacing(path) as scratch:
        scratch.write_bytes(bytes(1 << 20))


@pytest.mark.parametrize("write", [write_plain, write_with_torch, write_by_path])
def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path: Path, write):
    """A limit on the size of files stands for the end of the disk."""
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(FileWriteError, match=r"model\.pth cannot be written: it would be") as e:
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert e.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="absent") as caught:
        write_atomically(tmp_path / "new", lambda file: (tmp_path / "absent").read_bytes())
    assert not isinstance(caught.value, FileWriteError)


def test_leftovers_of_a_killed_process_are_found(tmp_path: Path):
    write_atomically(tmp_path / "whole.pth", lambda file: file.write(b"x"))
    with replacing(tmp_path / "model.pth") as scratch:
        scratch.touch()
        assert leftovers(tmp_path) == [scratch]
        assert scratch.suffix == ".pth"
    assert leftovers(tmp_path) == []
