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
assert detection_checkpoint.pickle.load.__module__ == "vfnet_yolof.registration"
for module in (detectron2.modeling, detectron2.checkpoint):
    assert module.__loader__ is module.__spec__.loader
    assert type(module.__loader__).__module__ != "vfnet_yolof.registration"
    assert inspect.getsource(module)
"""
ALONE_AND_IN_THREADS = """
import importlib, sys, threading
import vfnet_yolof
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "torchvision", "detectron2", "numpy", "omegaconf"}, loaded
assert {"Predictor", "optimize", "__version__"} <= set(dir(vfnet_yolof))

import detectron2.data  # its own modules import each other in a circle: no work for threads

found = []
def look(first):
    importlib.import_module(first)
    from detectron2.modeling import META_ARCH_REGISTRY
    found.append("VFNet" in META_ARCH_REGISTRY)
names = ["detectron2.modeling", "vfnet_yolof.modeling", "vfnet_yolof.config.inference"] * 2
threads = [threading.Thread(target=look, args=[name]) for name in names]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == [True] * len(names), found
"""
DETECTRON2_FIRST = """
import detectron2.checkpoint, detectron2.modeling
assert "VFNet" not in detectron2.modeling.META_ARCH_REGISTRY
assert "YOLOF" not in str(detectron2.modeling.META_ARCH_REGISTRY)
import warnings
import vfnet_yolof
assert "YOLOF" in str(detectron2.modeling.META_ARCH_REGISTRY)
assert detectron2.modeling.META_ARCH_REGISTRY.get("VFNet").__name__ == "VFNet"

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


def run_script(script: Path, text: str, repository: Path) -> None:
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        env={
            **os.environ,
            "PYTHONPATH": str(repository / "projects"),
            "OMP_NUM_THREADS": "1",
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
