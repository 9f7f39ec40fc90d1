"""The commands of "Your first detector", one after the other, with fewer iterations and images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import code_blocks

pytestmark = pytest.mark.slow

# What is changed of the page's text, so that it takes seconds.
SMALLER = {
    r"num_train=\d+": "num_train=12",
    r"num_val=\d+": "num_val=4",
    r"--seed 0 --epochs \d+": "--seed 0 --epochs 2",
}


def test_the_tutorial_can_be_followed(tmp_path: Path, repository: Path) -> None:
    blocks = [block for block in code_blocks("tutorial.md") if block.language != "text"]
    script = ["set -euo pipefail"]
    for number, block in enumerate(blocks):
        if block.language == "bash":
            script.append(block.code)
        else:
            assert block.language == "python"
            (tmp_path / f"{number}.py").write_text(block.code)
            script.append(f"python {number}.py")
    text = "\n".join(script)
    for pattern, replacement in SMALLER.items():
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, pattern

    done = subprocess.run(
        ["bash", "-c", text],
        cwd=tmp_path,
        env=_environment(tmp_path, repository),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "runs/first/model_best.pth").is_file()
    assert (tmp_path / "runs/first/model_final.pth").is_file()
    assert (tmp_path / "runs/first/config.yaml").is_file()
    assert (tmp_path / "runs/first/summary.md").is_file()
    assert (tmp_path / "drawn/found.json").is_file()
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 4


def _environment(folder: Path, repository: Path) -> dict[str, str]:
    """One in which `python` is this one and `vfnet-yolof` is this checkout's."""
    programs = folder / "bin"
    programs.mkdir()
    for name, arguments in (("python", ""), ("vfnet-yolof", " -m vfnet_yolof")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        (programs / name).chmod(0o755)
    assert shutil.which("bash")
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(repository / "projects"),
        "OMP_NUM_THREADS": "1",
    }
