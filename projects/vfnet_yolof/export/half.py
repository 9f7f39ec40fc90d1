"""Detectors in 16 bits, for GPUs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .parts import Parts

# What follows a convolution and is neither slower nor wrong in 16 bits.
_BESIDE = (
    *("Relu", "LeakyRelu", "Sigmoid", "MaxPool", "Resize", "Add", "Mul", "Concat"),
    *("InstanceNormalization", "GroupNormalization", "Reshape"),
)
_ONE_INPUT = ("Reshape", "Resize")  # the others are sizes
_FLOAT, _FLOAT16 = 1, 10  # ONNX's numbers of the types


def half(model: Any, parts: Parts) -> Any:
    """The graph with backbone, neck and towers of the head in float16; inputs stay float32.

    Head outputs, offsets of deformable convolutions and their arithmetic, decoding and NMS stay in
    float32: a position in pixels has no room in 11 bits. (onnxruntime's converter keeps single
    nodes in float32, but stores what goes from one to the next in float16.)

    Args:
        model: an ``onnx.ModelProto`` of :func:`.onnx_model`, which is left as it is.
    """
    from onnx import ModelProto

    copied = ModelProto()
    copied.CopyFrom(model)
    inside = _inside(copied.graph, set(parts.named(parts.nodes)))
    _Converter(copied.graph, inside).convert()
    return copied


def _inside(graph: Any, chosen: set[str]) -> set[str]:
    """Names of ``chosen`` nodes and of what computes with their results alone."""
    weights = {entry.name for entry in graph.initializer}
    halves: set[str] = set()  # values
    inside: set[str] = set()
    for node in graph.node:
        values = [name for name in _float_inputs(node) if name not in weights]
        follows = bool(values) and node.op_type in _BESIDE and halves.issuperset(values)
        if node.name in chosen or follows:
            inside.add(node.name)
            halves.update(node.output)
    return inside


def _float_inputs(node: Any) -> list[str]:
    inputs = node.input[:1] if node.op_type in _ONE_INPUT else node.input
    return [name for name in inputs if name]


class _Converter:
    """Turns some nodes of a graph to float16, with casts where values go in and out."""

    def __init__(self, graph: Any, inside: set[str]) -> None:
        self.graph, self.inside = graph, inside
        self.weights = {entry.name: entry for entry in graph.initializer}
        self.halves = {x for node in graph.node if node.name in inside for x in node.output}
        self.nodes: list[Any] = []
        self.cast: dict[str, str] = {}

    def convert(self) -> None:
        for node in list(self.graph.node):
            is_inside = node.name in self.inside
            floats = set(_float_inputs(node)) if is_inside else set()
            for i, name in enumerate(node.input):
                if name in floats and name not in self.halves:
                    node.input[i] = self._as(name, _FLOAT16)
                elif name in self.halves and not is_inside:
                    node.input[i] = self._as(name, _FLOAT)
            self.nodes.append(node)
        known = [entry for entry in self.graph.value_info if entry.name not in self.halves]
        used = {name for node in self.nodes for name in node.input}
        weights = [entry for entry in self.graph.initializer if entry.name in used]
        new = {"node": self.nodes, "value_info": known, "initializer": weights}
        for part, entries in new.items():
            copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
            del getattr(self.graph, part)[:]
            getattr(self.graph, part).extend(copies)

    def _as(self, name: str, to: int) -> str:
        """Another name, of the same value in that type."""
        from onnx import helper, numpy_helper

        if name not in self.cast:
            self.cast[name] = cast = f"{name}_{'half' if to == _FLOAT16 else 'single'}"
            if name in self.weights:
                value = numpy_helper.to_array(self.weights[name]).astype(np.float16)
                self.graph.initializer.append(numpy_helper.from_array(value, cast))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [cast], f"{cast}_cast", to=to))
        return self.cast[name]
