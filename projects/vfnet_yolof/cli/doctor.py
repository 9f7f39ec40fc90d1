"""``vfnet-yolof doctor``: what is installed, what works, and what each missing part disables."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..installer.install import find_installed, fingerprint
from ..utils import __version__
from .arguments import Command

PYTHON, TORCH = (3, 10), (2, 4)  # the oldest ones, as in pyproject.toml

# Module, distribution.
REQUIRED = (
    ("torchvision", "torchvision"),
    ("numpy", "numpy"),
    ("cv2", "opencv-python-headless"),
    ("PIL", "pillow"),
    ("pycocotools.mask", "pycocotools"),
    ("fvcore", "fvcore"),
    ("iopath", "iopath"),
    ("omegaconf", "omegaconf"),
    ("hydra", "hydra-core"),
    ("yaml", "pyyaml"),
    ("filelock", "filelock"),
    ("matplotlib", "matplotlib"),
    ("tabulate", "tabulate"),
    ("tqdm", "tqdm"),
    ("tensorboard", "tensorboard"),
)
# Module, distribution, and what is not there without it.
OPTIONAL = (
    ("timm", "timm", "configs with TimmBackbone cannot be built"),
    ("hotcoco", "hotcoco", "COCO's measures are computed ten times slower or more"),
    ("scipy", "scipy", "the Hungarian matcher among YOLOF's comparisons cannot be used"),
    ("safetensors", "safetensors", "weights in .safetensors files cannot be read"),
    ("supervision", "supervision", "nothing here; it would take the predictor's Instances"),
)


class Line(NamedTuple):
    """state: "ok", "note" or "PROBLEM", which means that training could not work."""

    state: str
    text: str


def examine() -> Iterator[Line]:
    """Everything that is looked at, in the order it depends on each other."""
    yield Line("ok", f"vfnet-yolof {__version__} in {Path(__file__).resolve().parents[1]}")
    yield _checked(sys.version_info[:2] >= PYTHON, f"python {platform.python_version()}", PYTHON)
    torch = _imported("torch")
    if isinstance(torch, str):
        yield Line("PROBLEM", f"torch: {torch}; run: pip install torch torchvision")
    else:
        newest = tuple(int(part) for part in torch.__version__.split(".")[:2])
        yield _checked(newest >= TORCH, f"torch {torch.__version__}", TORCH)
    for module, distribution in REQUIRED:
        found = _imported(module)
        if isinstance(found, str):
            yield Line("PROBLEM", f"{distribution}: {found}; run: pip install {distribution}")
        else:
            yield Line("ok", f"{distribution} {_version(found, distribution)}")
    yield from _detectron2()
    if not isinstance(torch, str):
        yield from _devices(torch)
        yield from _whole()
        yield from _images()
    yield from _optional()
    yield from _folders()


def _checked(new_enough: bool, text: str, oldest: tuple[int, int]) -> Line:
    if new_enough:
        return Line("ok", text)
    return Line("PROBLEM", f"{text}: {oldest[0]}.{oldest[1]} or newer is needed")


def _imported(name: str) -> Any:
    """The module, or why it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        return "not installed" if name.startswith(missing) else f"needs {missing}"
    except Exception as error:  # a broken installation may raise anything
        return f"cannot be imported: {_sentence(error)}"


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _version(module: Any, distribution: str) -> str:
    """By the module itself: there are several distributions of OpenCV."""
    if version := getattr(module, "__version__", ""):
        return str(version)
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _detectron2() -> Iterator[Line]:
    install = "run: vfnet-yolof install-detectron2"
    found = find_installed()
    if found is None:
        yield Line("PROBLEM", f"detectron2: not installed; {install}")
        return
    name = f"detectron2 {found.version} in {found.folder}"
    if found.problem:
        yield Line("PROBLEM", f"{name}: {found.problem}; {install} --force")
    elif not found.repairs:
        yield Line("ok", f"{name}, not one of ours")
    elif found.repairs == fingerprint():
        yield Line("ok", f"{name}, repaired")
    else:
        yield Line("note", f"{name}, repaired by another version of this package; {install}")


def _devices(torch: Any) -> Iterator[Line]:
    cores = os.cpu_count()
    yield _tried("cpu", f"{cores} cores, {torch.get_num_threads()} threads for torch")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = (
            f"torch is built for CUDA {built}, but sees none" if built else "torch is without CUDA"
        )
        yield Line("note", f"no GPU ({why}): training and detection run on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        text = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        yield _tried(f"cuda:{index}", text)


def _tried(device: str, text: str) -> Line:
    """The operators of PyTorch and torchvision that all detectors need, once."""
    try:
        _try_operators(device)
    except Exception as error:  # whatever a driver or a mismatch of versions raises
        return Line("PROBLEM", f"{device}: {text}; does not work: {_sentence(error)}")
    return Line("ok", f"{device}: {text}")


def _try_operators(device: str) -> None:
    import torch
    import torchvision

    image = torch.zeros(1, 3, 8, 8, device=device, requires_grad=True)
    weight = torch.zeros(2, 3, 3, 3, device=device)
    torch.nn.functional.conv2d(image, weight, padding=1).sum().backward()
    offset = torch.zeros(1, 18, 8, 8, device=device)
    torchvision.ops.deform_conv2d(image, offset, weight, padding=1).sum().backward()
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device)
    torchvision.ops.nms(boxes, boxes[:, 2], 0.5)


def _whole() -> Iterator[Line]:
    """What all of that is for: the modules of training, with everything they import."""
    found = _imported(f"{__package__}.training")
    if isinstance(found, str):
        yield Line("PROBLEM", f"training: {found}")
    else:
        yield Line("ok", "training: its modules can be imported")


def _images() -> Iterator[Line]:
    """Which kinds of image files are read, in training and prediction alike."""
    found = _imported("vfnet_yolof.utils.images")
    if isinstance(found, str):
        return  # said above
    yield Line("ok", f"images: {', '.join(k.name for k in found.IMAGE_KINDS if k.readable)}")
    for kind in found.IMAGE_KINDS:
        if not kind.readable:
            yield Line("note", f"images: {kind.name} is not read ({kind.remedy})")


def _optional() -> Iterator[Line]:
    for module, distribution, without in OPTIONAL:
        found = _imported(module)
        if isinstance(found, str):
            yield Line("note", f"{distribution}: {found}. {without} (pip install {distribution})")
        else:
            yield Line("ok", f"{distribution} {_version(found, distribution)}")


def _folders() -> Iterator[Line]:
    yield from _folder("cache of weights", "vfnet_yolof.model_zoo.files", "cache_dir")
    yield from _folder("drawn shapes", "vfnet_yolof.data.shapes", "default_folder")


def _folder(what: str, module: str, function: str) -> Iterator[Line]:
    found = _imported(module)
    if isinstance(found, str):
        return  # said above
    folder_of: Callable[[], Path] = getattr(found, function)
    folder = folder_of().resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        yield Line("note", f"{what}: {folder} cannot be written to: {error.strerror or error}")
    else:
        yield Line("ok", f"{what}: {folder}")


def _run(args: argparse.Namespace) -> int:
    problems = 0
    for line in examine():
        problems += line.state == "PROBLEM"
        print(f"{line.state:<8} {line.text}", flush=True)
    print(f"\n{problems} problems: training cannot work" if problems else "\ntraining can work")
    return 1 if problems else 0


DOCTOR = Command(
    "Versions, devices and optional packages, and what each missing one disables.\n"
    "Exit status 1: training could not work.",
    "  %(prog)s",
    lambda parser: None,
    _run,
)
