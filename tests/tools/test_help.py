"""``--help`` of every script in tools/: there at once, since nothing large is imported for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import contextlib, io, pathlib, runpy, sys
for name in ("torch", "torchvision", "detectron2", "numpy"):
    sys.modules[name] = None  # an import of it fails
tools = pathlib.Path(sys.argv[1])
scripts = sorted(tools.glob("*.py")) + [tools / "benchmarks" / "busy.py"]
shown = []
for script in scripts:
    if script.name == "docs_build.py":  # MkDocs imports it
        continue
    sys.argv = [str(script), "--help"]
    sys.path.insert(0, str(script.parent))
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            assert end.code == 0, script
    assert text.getvalue().startswith("usage: "), script
    shown.append(script.stem)
print(*shown)
"""


def test_help_needs_neither_torch_nor_detectron2(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(repository / "tools")],
        env={"PYTHONPATH": str(repository / "projects")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {"train_net", "demo", "benchmark", "run_demo", "busy"} <= set(done.stdout.split())
    assert len(done.stdout.split()) > 12
