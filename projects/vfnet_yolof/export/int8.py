"""Detectors in 8 bits, by post-training quantization: of ONNX files and of OpenVINO's.

Weights have a scale for each channel, activations one for each tensor, found on images of the user.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .onnx_file import quiet
from .parts import Parts

# How the range of an activation follows from images: the mean of their least and greatest values,
# these of all images, or by the histogram.
METHODS = ("mean", "minmax", "percentile", "entropy")
_OPTIONS: dict[str, dict[str, Any]] = {
    "mean": {"moving_average": True},  # the mean, of images that are collected at once
    "percentile": {"percentile": 99.9999},
}
_TYPES = ["Conv", "Add", "MaxPool", "Resize", "Relu", "LeakyRelu"]
# Behind a convolution or a sum in 8 bits. A Relu becomes the least value of its result; without
# that, each is a step back to floating point of its own.
_ACTIVATIONS = ("Relu", "LeakyRelu")


class Ranges:
    """Ranges of a graph's activations, measured once; any parts of it can be quantized then.

    Attributes:
        parts: of the graph.
    """

    def __init__(self, model: Any, images: Iterable[np.ndarray], method: str) -> None:
        """Run the graph on the images.

        Args:
            model: an ``onnx.ModelProto`` of :func:`.onnx_model`.
            images: of shape (3, H, W), as :meth:`.Metadata.prepared` gives them.
            method: one of ``METHODS``.
        """
        import onnx
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator
        from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

        if method not in METHODS:
            raise ValueError(f"calibration method {method!r} is none of {', '.join(METHODS)}")
        self.parts = Parts(model)
        with quiet(), tempfile.TemporaryDirectory(prefix="vfnet_yolof_int8.") as folder:
            self._model = save_and_reload_model_with_shape_infer(_prepared(model))
            source, augmented = Path(folder) / "model.onnx", Path(folder) / "augmented.onnx"
            onnx.save(self._model, str(source))
            kind = CalibrationMethod.MinMax if method in ("mean", "minmax") else None
            calibrator = create_calibrator(
                source,
                _TYPES,
                augmented_model_path=str(augmented),
                calibrate_method=kind or CalibrationMethod[method.capitalize()],
                extra_options=_OPTIONS.get(method, {}),
            )
            if kind is not None:  # keeps two numbers of each activation
                calibrator.collect_data(_Reader(images))
            else:
                for image in images:  # those of all images would not fit into memory
                    calibrator.collect_data(_Reader([image]))
            self._ranges = calibrator.compute_data()

    def quantized(self, parts: Collection[str]) -> Any:
        """The graph with some of its parts in 8 bits, as an ``onnx.ModelProto``."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        with quiet():
            quantizer = QDQQuantizer(
                copy.deepcopy(self._model),
                True,  # per channel
                False,  # all 8 bits: see runtime/processor.py on processors without VNNI
                QuantType.QInt8,
                QuantType.QUInt8,
                self._ranges,
                self._with_activations(self.parts.named(parts)),
                [],
                _TYPES,
                {},
            )
            quantizer.quantize_model()
        model = quantizer.model.model
        model.ir_version = self._model.ir_version
        _read_sizes_of_quantized(model.graph)
        return model

    def _with_activations(self, nodes: list[str]) -> list[str]:
        """Names of nodes, and of the activations that come right behind them."""
        chosen = set(nodes)
        results = {x for node in self._model.graph.node if node.name in chosen for x in node.output}
        behind = [
            node.name
            for node in self._model.graph.node
            if node.op_type in _ACTIVATIONS and node.input[0] in results
        ]
        return [*nodes, *behind]


def quantized_openvino(
    model: Any,
    parts: Parts,
    chosen: Collection[str],
    files: Sequence[Path],
    read: Callable[[Path], np.ndarray],
) -> Any:
    """An OpenVINO model with some of its parts in 8 bits, by NNCF, which chooses the ranges.

    Args:
        model: an ``openvino.Model``, converted from the ONNX graph that ``parts`` was made of.
        files: images. read: gives one as :meth:`.Metadata.prepared` does, (3, H, W).
    """
    import nncf

    inside = set(parts.named(chosen))
    outside = [
        op.get_friendly_name()
        for op in model.get_ops()
        if op.get_type_name() not in ("Constant", "Relu", "Result")
        and op.get_friendly_name().removesuffix("/WithoutBiases") not in inside
    ]
    with quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(list(files), lambda file: read(file)[None]),
            subset_size=len(files),
            ignored_scope=nncf.IgnoredScope(names=outside, validate=False),
        )


def _read_sizes_of_quantized(graph: Any) -> None:
    """Shapes, which group norms ask for, are taken of the 8-bit tensors as they are.

    Else onnxruntime turns each of these tensors to floating point once more for that.
    """
    sources = {x.output[0]: x.input[0] for x in graph.node if x.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in sources:
            node.input[0] = sources[node.input[0]]


class _Reader:
    """Images as onnxruntime's calibrators read their data."""

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"images": image[None]}


def _prepared(model: Any) -> Any:
    """A copy of a graph whose weights are plain and whose biases are each of one convolution.

    Only weights that are not reshaped get 8 bits. A bias that several convolutions have, such as
    the zeros of those before a norm, has a scale of its own in each: onnxruntime copies it, but may
    give the copy a name that the graph has already.
    """
    from onnx import ModelProto, numpy_helper

    copied = ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    values = {entry.name: entry for entry in graph.initializer}
    reshaped: dict[str, np.ndarray] = {}
    for node in list(graph.node):
        if node.op_type == "Reshape" and all(name in values for name in node.input):
            weight, shape = (numpy_helper.to_array(values[name]) for name in node.input)
            reshaped[node.output[0]] = weight.reshape(shape)
            graph.node.remove(node)
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in reshaped.items())
    values = {entry.name: entry for entry in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) > 2 and node.input[2] in values:
            bias = values[node.input[2]]
            node.input[2] = f"{node.name}.bias"
            own = graph.initializer.add()
            own.CopyFrom(bias)
            own.name = node.input[2]
    # What nothing reads any more would be in the file, and onnxruntime would warn of it.
    used = {name for node in graph.node for name in node.input}
    kept = [entry for entry in graph.initializer if entry.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return copied
