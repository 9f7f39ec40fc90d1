"""Configurations outside of ``configs/`` take from the packaged ones what they do not change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.config.packaged import config_dir, import_from, load_config
from vfnet_yolof.config.read import RunFlags, read

OWN = """
from vfnet_yolof.config.packaged import import_from
names = ("dataloader", "model", "optimizer", "train")
dataloader, model, optimizer, train = import_from("vfnet/vfnet_small.py", *names)
model.num_classes, train.max_iter, train.output_dir = 2, 900, "output/own"
dataloader.train.dataset.names, dataloader.test.dataset.names = "cats", "dogs"
lr_multiplier = import_from("common/schedule.py", "step_schedule")([1], 2, 900, warmup_iters=9)
"""


def test_a_whole_config_in_six_lines(tmp_path: Path) -> None:
    assert len(OWN.split("\n")) - 2 == 6
    path = tmp_path / "own.py"
    path.write_text(OWN)
    cfg = read(path, ["train.eval_period=300"], RunFlags()).cfg
    assert (cfg.model.num_classes, cfg.train.max_iter, cfg.train.eval_period) == (2, 900, 300)
    assert cfg.lr_multiplier.scheduler.num_updates == 2
    assert cfg.dataloader.test.dataset.names == "dogs"
    assert cfg.optimizer == load_config("vfnet/vfnet_small.py").optimizer
    # What the file has changed is its own.
    assert load_config("vfnet/vfnet_small.py").model.num_classes == 80


def test_what_import_from_gives() -> None:
    model = import_from("vfnet/vfnet_small", "model")
    model.num_classes = 7
    again, train = import_from("configs/vfnet/vfnet_small.py", "model", "train")
    assert again.num_classes == 80
    assert train.max_iter == 1500
    assert callable(import_from("common/schedule.py", "step_schedule"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('import_from("vfnet/vfnet_small.py")', "name what is to be imported"),
        ('import_from("vfnet/vfnet_small.py", "modle")', "vfnet_small.py does not define modle"),
        ('import_from("vfnet/vfnet_smal.py", "model")', "did you mean vfnet/vfnet_small.py"),
        ('import_from("vfnet/vfnet_r50_fpn_1x.yaml", "model")', "a configuration is a .py"),
    ],
)
def test_mistakes_of_an_import(call: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(f"from vfnet_yolof.config.packaged import import_from\nmodel = {call}\n")
    with pytest.raises(ConfigError, match=message) as error:
        read(path)
    assert f"{path}, line 2" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("from ..common.models.vfnet import model", "common/models/vfnet.py"),
        ("from .gfl.gfl_small import model", "gfl/gfl_small.py"),
        ("from .mine import model", "vfnet/vfnet_small.py"),
    ],
)
def test_a_relative_import_that_leads_nowhere(line: str, file: str, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(f"{line}\n")
    with pytest.raises(ConfigError) as error:
        read(path)
    text = str(error.value)
    assert f"{path}, line 1: ImportError" in text
    assert f"import import_from; model = import_from('{file}', 'model')" in text
    assert "\n" not in text


def test_from_an_installed_package(tmp_path: Path, repository: Path) -> None:
    """As a wheel lays it out: the configs are inside of the package, and no checkout is near."""
    site, work = tmp_path / "site", tmp_path / "work"
    package = site / "vfnet_yolof"
    package.mkdir(parents=True)
    work.mkdir()
    for part in (repository / "projects/vfnet_yolof").iterdir():
        if part.name != "__pycache__":
            (package / part.name).symlink_to(part)
    # find_config goes by the package's real place, so this module is no link.
    (package / "config").unlink()
    (package / "config").mkdir()
    for part in (repository / "projects/vfnet_yolof/config").glob("*.py"):
        (package / "config" / part.name).write_text(part.read_text())
    (package / "_configs").symlink_to(repository / "configs")
    (work / "own.py").write_text(OWN)
    program = (
        "from vfnet_yolof.config.packaged import config_dir\n"
        "from vfnet_yolof.config.read import RunFlags, read\n"
        "print(config_dir(), read('own.py', (), RunFlags()).cfg.train.output_dir)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(package / "_configs"), "output/own"]
    assert config_dir() != package / "_configs"
