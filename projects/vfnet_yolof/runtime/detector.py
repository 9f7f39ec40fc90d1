"""Images in, boxes out, by onnxruntime or OpenVINO."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.image_arrays import ImageLike, to_array
from .candidates import Found, detections
from .metadata import KEY, SUFFIXES, ExportedFileError, Metadata, require_undamaged
from .processor import warn_of_int8

# (N, 3, H, W) float32 -> the graph's outputs
Graph = Callable[[np.ndarray], list[np.ndarray]]


class ExportedDetector:
    """An exported file and what runs it.

    Attributes:
        metadata: what the file says about itself. path: of the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        score_thresh: float = 0.3,
        threads: int | None = None,
        trusted: bool = False,
    ) -> None:
        """Open the file.

        Opening a file of 8 bits on a processor that is not known to be made for them logs a
        warning, once.

        Args:
            path: an ONNX file, or the .xml of an OpenVINO IR.
            score_thresh: detections with lower scores are left out, in addition to the file's own
                threshold.
            threads: of the processor; by default what the runtime takes.
            trusted: needed for a ``.pt2``, see :func:`open_graph`.

        Raises:
            ExportedFileError: the file is damaged, or of another program.
            FileNotFoundError: there is no such file.
            ModuleNotFoundError: the runtime is not installed.
        """
        if not 0.0 <= score_thresh <= 1.0:
            raise ValueError(f"score_thresh must lie in [0, 1], got {score_thresh}")
        self.path = str(path)
        self.score_thresh = score_thresh
        self._run, self.metadata = open_graph(path, threads, trusted=trusted)
        if self.metadata.precision == "int8":
            warn_of_int8()

    def run(self, images: np.ndarray) -> list[Found]:
        """Detections in images as :meth:`Metadata.prepared` gives them, in their pixels.

        Args:
            images: (N, 3, H, W) float32. All detections above the file's own threshold come out.

        Raises:
            ExportedFileError: the runtime fails, or the file does not take this size.
        """
        try:
            self.metadata.require_size(images.shape[2:])
        except ExportedFileError as error:
            raise ExportedFileError(f"{self.path}: {error}") from error
        try:
            outputs = self._run(images)
        except Exception as error:  # each runtime has its own types
            reason = " ".join(str(error).split())[:300]
            raise ExportedFileError(
                f"{self.path} fails on images of {images.shape[2]}x{images.shape[3]} px: {reason}"
            ) from error
        if self.metadata.nms == "outside":
            size = images.shape[2], images.shape[3]
            pairs = zip(*outputs, strict=True)
            return [detections(boxes, scores, size, self.metadata) for boxes, scores in pairs]
        boxes, scores, classes, counts = outputs
        return [
            Found(boxes[i, :n], scores[i, :n], classes[i, :n].astype(np.int64))
            for i, n in enumerate(counts.tolist())
        ]

    def __call__(self, image: ImageLike, *, input_format: str = "BGR") -> Found:
        """Detect in one image.

        Args:
            image: (H, W, 3) uint8, a Pillow image, or a file, which is read as people see it.
            input_format: channel order of an array.

        Raises:
            ExportedFileError: the file does not take the size that this image is resized to.
            ValueError, TypeError, FileNotFoundError, ImageReadError: of an image that is none.
        """
        array = to_array(image, self.metadata.channel_order, input_format)
        height, width = array.shape[:2]
        try:
            prepared = self.metadata.prepared(array)
        except ExportedFileError as error:
            raise ExportedFileError(f"{self.path}: {error}") from error
        (found,) = self.run(prepared[None])
        scale = np.array([width / prepared.shape[2], height / prepared.shape[1]] * 2, np.float32)
        limit = np.array([width, height] * 2, np.float32)
        boxes = np.clip(found.boxes * scale, 0, limit)
        keep = (found.scores >= self.score_thresh) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Found(boxes[keep], found.scores[keep], found.classes[keep])


def open_graph(
    path: str | os.PathLike[str], threads: int | None = None, *, trusted: bool = False
) -> tuple[Graph, Metadata]:
    """What runs the file, by its suffix, and its metadata; errors as of :class:`ExportedDetector`.

    Files of torch.export need PyTorch, whose reader runs code that they hold: they are refused
    unless ``trusted``.
    """
    path = Path(path)
    if path.suffix == ".pt2" and not trusted:
        raise ExportedFileError(
            f"{path} is a program to PyTorch, whose reader runs code that such a file holds. If "
            "you made it yourself or trust who did, add --trust-config (trust_config=True in "
            "Python, trusted=True in vfnet_yolof.runtime); ONNX and OpenVINO files need no trust"
        )
    openers = {".onnx": _open_onnx, ".xml": _open_openvino, ".pt2": _open_torch}
    if path.suffix not in openers:
        raise ExportedFileError(f"{path} is no exported detector: these end in {SUFFIXES}")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        # Beside the opening, most of which takes one core.
        with ThreadPoolExecutor(1) as pool:
            undamaged = pool.submit(require_undamaged, path)
            if path.suffix == ".pt2":  # whose reader runs what it reads
                undamaged.result()
            try:
                run, text = openers[path.suffix](path, threads)
            finally:
                undamaged.result()  # says more than the runtime's own error
    except ExportedFileError:
        raise
    except ModuleNotFoundError as error:
        message = f"{path} needs {error.name}: pip install {error.name}"
        raise ModuleNotFoundError(message, name=error.name) from error
    except Exception as error:  # each runtime has its own types
        reason = " ".join(str(error).split())[:300]
        raise ExportedFileError(f"{path} cannot be read: {reason}") from error
    return run, Metadata.from_json(text, path)


def _open_onnx(path: Path, threads: int | None) -> tuple[Graph, str | None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    return lambda images: session.run(None, {session.get_inputs()[0].name: images}), text


def _open_openvino(path: Path, threads: int | None) -> tuple[Graph, str | None]:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}  # as exact as the file; bf16 is not asked for
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    model = core.read_model(path)
    text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    compiled = core.compile_model(model, "CPU", options)
    return lambda images: [x.copy() for x in compiled(images).to_tuple()], text


def _open_torch(path: Path, threads: int | None) -> tuple[Graph, str | None]:
    module, text = load_program(path)
    return partial(run_program, module), text


def load_program(path: Path) -> tuple[Any, str | None]:
    """The ``torch.nn.Module`` of a ``.pt2``, whose code this runs, and the text of its metadata."""
    import torch
    import torchvision  # noqa: F401  # registers its operators, which the file names

    extra = {KEY: ""}
    return torch.export.load(path, extra_files=extra).module(), extra[KEY]


def run_program(module: Any, images: np.ndarray) -> list[np.ndarray]:
    """(N, 3, H, W) float32 -> the outputs of a module of :func:`load_program`."""
    import torch

    with torch.inference_mode():
        return [x.numpy() for x in module(torch.from_numpy(images))]
