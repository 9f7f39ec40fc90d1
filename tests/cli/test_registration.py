"""What Detectron2 knows after nothing but ``import vfnet_yolof``; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KNOWN = """
import inspect
import detectron2.checkpoint, detectron2.modeling
from detectron2.checkpoint import detection_checkpoint
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
assert {"VFNet", "GFL", "YOLOF"} <= {name for name, _ in META_ARCH_REGISTRY}
assert "build_vfnet_yolof_resnet_fpn_backbone" in BACKBONE_REGISTRY
assert detection_checkpoint.pickle.load.__module__ == "vfnet_yolof.checkpoint.detectron2_files"
for module in (detectron2.modeling, detectron2.checkpoint):
    assert module.__loader__ is module.__spec__.loader
    assert type(module.__loader__).__module__ != "vfnet_yolof.registration"
    assert inspect.getsource(module)
"""
ALONE_AND_IN_THREADS = """
import sys, threading
import vfnet_yolof
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "torchvision", "detectron2", "numpy", "omegaconf"}, loaded
assert {"Predictor", "optimize", "__version__"} <= set(dir(vfnet_yolof))

found = []
def look():
    from detectron2.modeling import META_ARCH_REGISTRY
    found.append("VFNet" in META_ARCH_REGISTRY)
threads = [threading.Thread(target=look) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == [True] * 4, found
"""
DETECTRON2_FIRST = """
import detectron2.checkpoint, detectron2.modeling
assert "VFNet" not in detectron2.modeling.META_ARCH_REGISTRY
import warnings
import vfnet_yolof
assert "VFNet" in detectron2.modeling.META_ARCH_REGISTRY

warnings.simplefilter("ignore")
from vfnet_yolof.yaml_files import Trust  # an old name
from vfnet_yolof.config import yaml_files
assert Trust is yaml_files.Trust
"""
# A function of the script is all that the worker is given; the script imports the package.
WORKER = """
import multiprocessing
import vfnet_yolof

def registered(name):
    from detectron2.modeling import META_ARCH_REGISTRY
    return name in META_ARCH_REGISTRY

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(registered, ["VFNet"])
"""
SET_UP = (
    "import vfnet_yolof"
    + KNOWN
    + """
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
assert "VFNET" in get_cfg().MODEL
assert "shapes_train" in DatasetCatalog
"""
)


def run_script(script: Path, text: str, repository: Path, **environment: str) -> None:
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        env={
            **os.environ,
            "PYTHONPATH": str(repository / "projects"),
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "program",
    [ALONE_AND_IN_THREADS + KNOWN, DETECTRON2_FIRST + KNOWN, WORKER],
    ids=["alone, in threads", "Detectron2 first, old names", "spawned worker"],
)
def test_names_are_registered(program: str, repository: Path, tmp_path: Path) -> None:
    run_script(tmp_path / "script.py", program, repository)


def test_detectron2_set_up_by_us(repository: Path, tmp_path: Path) -> None:
    """The variable is read in the middle of Detectron2's import, which ours then begins with."""
    module = "vfnet_yolof.detectron2_setup"
    run_script(tmp_path / "script.py", SET_UP, repository, DETECTRON2_ENV_MODULE=module)
