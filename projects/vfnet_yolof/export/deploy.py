"""Folders in which servers and browsers find an exported ONNX file: Triton, TensorRT, a page.

Neither PyTorch nor Detectron2 is needed.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from ..runtime import ExportedFileError, Metadata
from ..runtime.metadata import KEY, require_undamaged
from ..utils.files import replacing

# ONNX's numbers of the types, and Triton's names
_TYPES = {1: "TYPE_FP32", 7: "TYPE_INT64", 10: "TYPE_FP16"}
_MODEL, _METADATA = "model.onnx", "metadata.json"
# Of npm's onnxruntime-web: the build for processors alone.
RUNTIME_FILES = (
    "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
_LEAST = 32  # px, of the sides of images that an engine takes
_PAGE = ("index.html", "detect.js")


class Tensor(NamedTuple):
    """An input or output of the graph.

    Attributes:
        type: Triton's name. dims: of it, without the batch; -1 where any number is taken.
        batched: whether the first dimension of all is the number of images, and free.
    """

    name: str
    type: str
    dims: tuple[int, ...]
    batched: bool


@dataclass(frozen=True)
class OnnxFile:
    """An exported ONNX file: what it takes and gives, and what it says about itself."""

    path: Path
    metadata: Metadata
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @classmethod
    def open(cls, path: Path) -> OnnxFile:
        """Read a file that ``vfnet-yolof export`` has written.

        Raises:
            ExportedFileError: it is none, or damaged.
            FileNotFoundError: there is no such file.
            ModuleNotFoundError: onnx is not installed.
        """
        import onnx

        if path.suffix != ".onnx":
            raise ExportedFileError(
                f"{path} is no ONNX file, which is what these programs read: "
                "vfnet-yolof export MODEL --format onnx"
            )
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        require_undamaged(path)
        try:
            model = onnx.load(str(path))
        except Exception as error:  # protobuf has types of its own
            reason = " ".join(str(error).split())[:300]
            raise ExportedFileError(f"{path} cannot be read: {reason}") from error
        texts = {entry.key: entry.value for entry in model.metadata_props}
        metadata = Metadata.from_json(texts.get(KEY), path)
        inputs, outputs = (
            tuple(_tensor(value, path) for value in values)
            for values in (model.graph.input, model.graph.output)
        )
        return cls(path, metadata, inputs, outputs)


def _tensor(value: Any, path: Path) -> Tensor:
    kind = value.type.tensor_type
    name = str(value.name)
    if kind.elem_type not in _TYPES:
        raise ExportedFileError(
            f"{path}: {name} has ONNX's type {kind.elem_type}; known are {sorted(_TYPES)}"
        )
    batch, *sides = (entry.dim_value or -1 for entry in kind.shape.dim)
    return Tensor(name, _TYPES[kind.elem_type], tuple(sides), batch == -1)


def deploy_triton(file: OnnxFile, output: Path, *, max_batch: int = 8) -> list[Path]:
    """Write a model of Triton's repository ``output``: the file, ``config.pbtxt``, metadata.

    Args:
        max_batch: images that Triton may put into one request to the graph; they have one size.

    Returns:
        The files that were written.

    Raises:
        ExportedFileError: an input or output of the graph has no free batch.
    """
    folder = output / served_name(file)
    written = [_copy(file.path, folder / "1" / _MODEL), _write_metadata(file, folder)]
    return [*written, _write(folder / "config.pbtxt", triton_config(file, max_batch=max_batch))]


def triton_config(file: OnnxFile, *, max_batch: int = 8) -> str:
    """Triton's ModelConfig as protobuf text, see :func:`deploy_triton`."""
    fixed = [x.name for x in (*file.inputs, *file.outputs) if not x.batched]
    if fixed:
        raise ExportedFileError(
            f"{file.path}: {fixed[0]} has a fixed number of images, which Triton cannot batch: "
            "export it again with this release"
        )
    blocks = [
        f'name: "{served_name(file)}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {max_batch}",
        *(_triton_tensor("input", x) for x in file.inputs),
        *(_triton_tensor("output", x) for x in file.outputs),
        "dynamic_batching {\n}",
    ]
    return "\n".join(blocks) + "\n"


def _triton_tensor(kind: str, tensor: Tensor) -> str:
    # One number for each image: Triton's tensors have a dimension, which the graph's has not.
    dims = ", ".join(map(str, tensor.dims or (1,)))
    lines = [f'  name: "{tensor.name}"', f"  data_type: {tensor.type}", f"  dims: [ {dims} ]"]
    if not tensor.dims:
        lines.append("  reshape { shape: [ ] }")
    return "\n".join([f"{kind} {{", *lines, "}"])


def deploy_tensorrt(
    file: OnnxFile, output: Path, *, largest: tuple[int, int] | None = None, max_batch: int = 8
) -> list[Path]:
    """Write the file and a shell script that builds an engine of it with ``trtexec``.

    The engine computes in the types of the file, as TensorRT 11 knows no other way: float16 takes
    an fp16 file.

    Args:
        largest: (H, W) px of the largest image; by default what the resizing of images gives.
        max_batch: images, at most.

    Returns:
        The files that were written.

    Raises:
        ExportedFileError: the file is an int8 one, whose activations have no sign, or its images
            are not resized and ``largest`` is not given.
    """
    if file.metadata.precision == "int8":
        raise ExportedFileError(
            f"{file.path} is an int8 file for processors: its activations are 8-bit numbers "
            "without sign, which TensorRT does not take; export with --precision fp16"
        )
    text = trtexec_script(file, largest=largest, max_batch=max_batch)
    script = output / "build_engine.sh"
    written = [_copy(file.path, output / _MODEL), _write_metadata(file, output)]
    written.append(_write(script, text))
    script.chmod(0o755)
    return written


def trtexec_script(
    file: OnnxFile, *, largest: tuple[int, int] | None = None, max_batch: int = 8
) -> str:
    """The script of :func:`deploy_tensorrt`."""
    (images,) = file.inputs
    smallest, usual, largest = _sizes(file, largest)
    shapes = zip(("min", "opt", "max"), (1, 1, max_batch), (smallest, usual, largest), strict=True)
    flags = [
        f"--onnx={_MODEL}",
        "--saveEngine=model.plan",
        "--stronglyTyped",
        *(
            shlex.quote(f"--{name}Shapes={images.name}:{count}x3x{size[0]}x{size[1]}")
            for name, count, size in shapes
        ),
    ]
    precision = file.metadata.precision
    return "\n".join(
        [
            "#!/bin/sh",
            f"# TensorRT's engine of {file.metadata.detector}, {precision}.",
            "# Not run where it was written: it takes an NVIDIA GPU and TensorRT 10.12 or newer.",
            "# The engine computes in the file's own types: TensorRT 11 has no --fp16 any more,",
            "# and takes --stronglyTyped for granted.",
            "set -eu",
            'cd "$(dirname "$0")"',
            " \\\n    ".join(["trtexec", *flags]),
            "",
        ]
    )


Size = tuple[int, int]


def _sizes(file: OnnxFile, largest: Size | None) -> tuple[Size, Size, Size]:
    """The least, the usual and the largest (H, W) of resized images, px."""
    metadata, rule = file.metadata, file.metadata.resize
    if metadata.static_size is not None:
        height, width = metadata.static_size
        return ((height, width),) * 3
    if rule["kind"] == "fixed":
        return ((rule["height"], rule["width"]),) * 3
    least = max(_LEAST, metadata.divisor)
    if rule["kind"] == "shortest_edge":
        short, long = rule["short_edge_length"], rule["max_size"]
        largest = largest or (long, long)
        usual = (min(short, largest[0]), min(long, round(short * 4 / 3), largest[1]))
        return (min(least, usual[0]), min(least, usual[1])), usual, largest
    if largest is None:
        raise ExportedFileError(
            f"{file.path}: its images are not resized, so their size is not known; say how large "
            "they get: --largest HxW"
        )
    return (min(least, largest[0]), min(least, largest[1])), largest, largest


def deploy_browser(file: OnnxFile, output: Path, runtime_files: Path) -> list[Path]:
    """Write a page that detects in images where it is shown; nothing leaves the browser.

    Args:
        runtime_files: folder with :data:`RUNTIME_FILES` of npm's onnxruntime-web, or of the package
            itself.

    Returns:
        The files that were written.

    Raises:
        ExportedFileError: duplicates are to be removed outside of the graph.
        FileNotFoundError: the folder lacks a file.
    """
    if file.metadata.nms == "outside":
        raise ExportedFileError(
            f"{file.path} gives candidates, and the page removes no duplicates: export it with "
            "--nms inside"
        )
    folder = runtime_files / "dist" if (runtime_files / "dist").is_dir() else runtime_files
    absent = [name for name in RUNTIME_FILES if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"--runtime-files: {folder} has no {absent[0]}, of npm's package onnxruntime-web: "
            "npm pack onnxruntime-web, unpack it, and name its folder package/dist"
        )
    written = [_copy(folder / name, output / "ort" / name) for name in RUNTIME_FILES]
    written += [_copy(file.path, output / _MODEL), _write_metadata(file, output)]
    source = resources.files(__package__) / "browser"
    for name in _PAGE:
        written.append(_write(output / name, (source / name).read_text(encoding="utf-8")))
    return written


def served_name(file: OnnxFile) -> str:
    """The file's name as servers take it in their addresses."""
    return re.sub(r"[^\w.-]+", "_", file.path.stem)


def _write_metadata(file: OnnxFile, folder: Path) -> Path:
    return _write(folder / _METADATA, file.metadata.to_json())


def _write(target: Path, text: str) -> Path:
    return _placed(target, lambda path: path.write_text(text, encoding="utf-8"))


def _copy(source: Path, target: Path) -> Path:
    return _placed(target, lambda path: shutil.copyfile(source, path))


def _placed(target: Path, make: Callable[[Path], object]) -> Path:
    with replacing(target) as unfinished:
        make(unfinished)
    return target
