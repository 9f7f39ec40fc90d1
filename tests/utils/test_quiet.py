"""Other packages' warnings go to the log file; a user's own are shown; -W decides where given."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, warnings
from vfnet_yolof.utils.quiet import keep_warnings_off_console, log_warnings
keep_warnings_off_console()

def warn(text, category, file):
    warnings.warn_explicit(text, category, file, 3)

import vfnet_yolof
own = vfnet_yolof.__path__[0]
warn("of timm", FutureWarning, "/x/site-packages/timm/layers.py")
log_warnings([logging.FileHandler(sys.argv[1])])
warn("of Python", DeprecationWarning, logging.__file__)
warn("of torch, for us", FutureWarning, f"{own}/engine/step.py")
warn("of C++ (Triggered internally at x.cpp)", UserWarning, f"{own}/engine/step.py")
warn("our own", UserWarning, f"{own}/engine/step.py")
warn("of a config", FutureWarning, "/home/me/config.py")
"""


@pytest.mark.parametrize("said", ["", "default"])
def test_whose_warnings_are_shown(tmp_path, repository, said):
    log = tmp_path / "log.txt"
    environment = {k: v for k, v in os.environ.items() if k != "VFNET_YOLOF_QUIET"}
    environment |= {"PYTHONPATH": str(repository / "projects"), "PYTHONWARNINGS": said}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(log)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = [text for text in ("our own", "of a config") if text in done.stderr]
    kept = [text for text in ("of timm", "of torch, for us", "of C++") if text in log.read_text()]
    assert shown == ["our own", "of a config"]
    assert len(kept) == (0 if said else 3)
    assert ("of timm" in done.stderr) == bool(said)
