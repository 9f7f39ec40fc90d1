"""``--data`` with other formats and ``--split``, and ``convert-data``."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import data_formats as formats
import pytest
from vfnet_yolof.cli.arguments import Command, add_data
from vfnet_yolof.cli.data import data_paths
from vfnet_yolof.cli.main import main
from vfnet_yolof.data import validate_coco

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFNET_YOLOF_CACHE", str(tmp_path / "cache"))


def paths(*arguments: str) -> dict[str, str]:
    command = Command("", "", add_data, lambda args: 0)
    return data_paths(command.parsed("test", arguments))


def test_validate_data_tells_what_it_found(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("detectron2"), "handlers", [])  # of other tests' runs
    root = formats.write_voc(tmp_path / "data", formats.pictures(20))
    assert main(["validate-data", "--data", str(root), "--split", "0.25", "--decode"]) == 0
    out, err = capsys.readouterr()
    assert f"{root}: Pascal VOC, 15 images with " in err and "in train, 5 images with" in err
    assert "train.json: 15 images" in out and "val.json: 5 images" in out


def test_refused(tmp_path: Path, capsys: Output) -> None:
    def refused(message: str, *arguments: str) -> None:
        assert main([*arguments]) == 2
        (error,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert message in error

    root = str(formats.write_coco(tmp_path / "data", formats.pictures(4)))
    refused("--split parts the data that --data names", "validate-data", "--split", "0.2")
    config = "vfnet/vfnet_small.py"
    refused("no validation set. --split 0.2 takes", "evaluate", config, "--data", root)
    broken = str(Path(__file__).parents[1] / "data" / "own_data" / "yolo" / "broken.yaml")
    refused("short.txt, line 3", "validate-data", "--data", broken)


@pytest.mark.slow
def test_train_and_evaluate(tmp_path: Path) -> None:
    root = str(formats.write_yolo(tmp_path / "data", formats.pictures(8)))
    out = str(tmp_path / "run")
    loaders = [f"dataloader.{name}.num_workers=0" for name in ("train", "test")]
    changes = ["train.max_iter=1", "dataloader.train.total_batch_size=2", *loaders]
    shared = ["--data", root, "--split", "0.25", "--device", "cpu"]
    assert main(["train", "vfnet/vfnet_small.py", *shared, "--output", out, *changes]) == 0
    assert main(["evaluate", out, *shared, "--output", str(tmp_path / "results")]) == 0


@pytest.mark.parametrize("name", formats.ALL)
@pytest.mark.parametrize("copy", [False, True])
def test_convert_data(name: str, copy: bool, tmp_path: Path, capsys: Output) -> None:
    root = formats.ALL[name](tmp_path / "data", formats.pictures(8))
    out = tmp_path / "new" / "coco"
    command = ["convert-data", str(root), "--output", str(out), "--split", "0.25"]
    command += ["--copy-images"] if copy else []
    assert main(command) == 0
    assert ("copied in train/" if copy else "linked in train/") in capsys.readouterr().out
    images = list(out.rglob("*.png"))
    assert len(images) == 8 and all(path.is_symlink() != copy for path in images)
    if copy:
        root.rename(tmp_path / "moved")
    again = paths("--data", str(out))
    assert again["train_json"] == str(out / "train.json")
    for split in ("train", "val"):
        found = (again[f"{split}_json"], again[f"{split}_images"])
        assert validate_coco(*found, images="decode").ok


def test_convert_data_replaces_nothing_unasked(tmp_path: Path, capsys: Output) -> None:
    root = formats.write_csv(tmp_path / "data", formats.pictures(8))
    out = tmp_path / "coco"
    command = ["convert-data", str(root), "--output", str(out)]
    assert main([*command, "--split", "0.25"]) == 0
    assert main(command) == 2
    assert f"{out / 'train.json'} is there already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert len(json.loads((out / "train.json").read_text())["images"]) == 8
    assert not (out / "val.json").exists()  # else it would be taken for this set's
    assert main(["convert-data", str(out), "--output", str(out), "--overwrite"]) == 2
    assert "lies in the data itself" in capsys.readouterr().err
    assert all(path.is_symlink() for path in (out / "train").iterdir())


def test_convert_data_stays_in_its_folder(tmp_path: Path, capsys: Output) -> None:
    root = formats.write_coco(tmp_path / "data", formats.pictures(2))
    file = root / "train" / "_annotations.coco.json"
    file.write_text(file.read_text().replace("image_000", "../train/image_000"))
    out = tmp_path / "coco"
    assert main(["convert-data", str(root), "--output", str(out)]) == 0
    file.write_text(file.read_text().replace("../train/image_000", "../../data/train/image_000"))
    assert main(["convert-data", str(root), "--output", str(out), "--overwrite"]) == 2
    assert "is not below" in capsys.readouterr().err
