"""Detectors in 16 bits, for GPUs."""

from __future__ import annotations

from typing import Any

from .onnx_file import quiet
from .parts import Parts

# What follows a convolution and is neither slower nor wrong in 16 bits.
_BESIDE = (
    *("Relu", "LeakyRelu", "Sigmoid", "MaxPool", "Resize", "Add", "Mul", "Concat"),
    *("InstanceNormalization", "GroupNormalization", "Reshape"),
)
_ONE_INPUT = ("Reshape", "Resize")  # the others are sizes


def half(model: Any, parts: Parts) -> Any:
    """The graph with backbone, neck and towers of the head in float16; inputs stay float32.

    Head outputs, offsets of deformable convolutions and their arithmetic, decoding and NMS stay in
    float32: a position in pixels has no room in 11 bits.

    Args:
        model: an ``onnx.ModelProto`` of :func:`.onnx_model`, which is left as it is.
    """
    from onnx import ModelProto
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = ModelProto()
    copied.CopyFrom(model)
    inside = _inside(model.graph, set(parts.named(parts.nodes)))
    with quiet():
        return convert_float_to_float16(
            copied,
            keep_io_types=True,
            op_block_list=[],
            node_block_list=[x.name for x in model.graph.node if x.name not in inside],
        )


def _inside(graph: Any, chosen: set[str]) -> set[str]:
    """Names of ``chosen`` nodes and of what computes with their results alone."""
    weights = {entry.name for entry in graph.initializer}
    halves: set[str] = set()  # values
    inside: set[str] = set()
    for node in graph.node:
        inputs = node.input[:1] if node.op_type in _ONE_INPUT else node.input
        values = [name for name in inputs if name and name not in weights]
        follows = bool(values) and node.op_type in _BESIDE and halves.issuperset(values)
        if node.name in chosen or follows:
            inside.add(node.name)
            halves.update(node.output)
    return inside
