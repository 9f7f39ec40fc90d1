"""What the distribution contains, and what it says about itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import vfnet_yolof


def test_version_is_a_release_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", vfnet_yolof.__version__)


def test_the_configs_of_this_checkout_are_found(repository: Path) -> None:
    from vfnet_yolof.config.packaged import config_dir

    assert config_dir() in (repository / "configs", Path(vfnet_yolof.__file__).parent / "_configs")


def test_what_the_package_offers_can_be_seen_and_used() -> None:
    """In a new process, since names that were used once are there anyway."""
    code = (
        "import vfnet_yolof\n"
        "assert set(vfnet_yolof.__all__) <= set(dir(vfnet_yolof)), dir(vfnet_yolof)\n"
        "for name in ('Predictor', 'from_zoo', 'model_zoo', 'optimize'):\n"
        "    assert name in vfnet_yolof.__all__ and getattr(vfnet_yolof, name)\n"
        "assert vfnet_yolof.model_zoo.ROWS\n"
        "assert not hasattr(vfnet_yolof, 'predictor')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_every_config(tmp_path: Path, repository: Path) -> None:
    """Installed without the repository, the package still has its experiments beside it."""
    checkout = tmp_path / "checkout"
    for name in ("projects", "configs"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(repository / name, checkout / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, checkout)
    wanted = {
        (prefix / path.relative_to(checkout / name)).as_posix()
        for name, prefix in (("projects", Path()), ("configs", Path("vfnet_yolof/_configs")))
        for path in (checkout / name).rglob("*")
        if path.suffix in (".py", ".yaml", ".typed")
    }
    assert any(name.startswith("vfnet_yolof/_configs/") for name in wanted)

    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(checkout)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"vfnet_yolof-{vfnet_yolof.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wanted <= names, sorted(wanted - names)
    assert {name.split("/")[0] for name in names if not name.startswith("vfnet_yolof-")} == {
        "vfnet_yolof"
    }
