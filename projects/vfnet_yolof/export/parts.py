"""Parts of a detector in its ONNX graph, which may be computed with fewer bits, or must not be.

PyTorch's exporter notes at each node the modules that it comes from; parts are named after these.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

_SCOPES = "pkg.torch.onnx.name_scopes"
_BOTTOM_UP, _BACKBONE, _HEAD = "model.backbone.bottom_up.", "model.backbone", "model.head."
_STEPS = 7  # nodes of a group norm and the activation behind it, at most
_ACTIVATIONS = ("Relu", "LeakyRelu", "Sigmoid", "HardSwish", "HardSigmoid")
# What stays in 8 bits between two convolutions.
_BETWEEN = ("Add", "MaxPool", "Resize")


class Parts:
    """Nodes of a graph by part: ``res2`` to ``res5`` of the backbone, ``neck``, towers of the head.

    The head's last convolutions, whose outputs are scores, distances and star offsets, and those
    that give offsets of deformable convolutions are in no part: they stay in floating point, as
    everything behind them does.

    Attributes:
        nodes: names of the nodes of each part, in the order of the graph.
        convolutions: how many of them are convolutions.
        exact: names of the convolutions that belong to no part.
    """

    def __init__(self, model: Any) -> None:
        """model: an ``onnx.ModelProto`` of :func:`.onnx_model`."""
        self._consumers: dict[str, list[Any]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._consumers[name].append(node)
        deformed = {
            tuple(scopes_of(node))
            for node in model.graph.node
            if node.op_type in ("GridSample", "DeformConv")
        }
        self.nodes: dict[str, list[str]] = {}
        self.convolutions: dict[str, int] = {}
        self.exact: list[str] = []
        for node in model.graph.node:
            if node.op_type not in ("Conv", *_BETWEEN):
                continue
            scopes = scopes_of(node)
            part = _part(scopes)
            if node.op_type == "Conv":
                if part is None or self._is_exact(node, scopes):
                    self.exact.append(node.name)
                    continue
                self.convolutions[part] = self.convolutions.get(part, 0) + 1
            elif part is None or tuple(scopes) in deformed or not _is_plain(scopes):
                continue
            self.nodes.setdefault(part, []).append(node.name)
        self.nodes = {part: self.nodes[part] for part in self.convolutions}
        if not self.nodes:
            raise ValueError(
                "no convolution of the exported graph says which module it comes from, so that "
                "none can be computed in 8 or 16 bits: another release of PyTorch may be needed"
            )

    def named(self, parts: Iterable[str]) -> list[str]:
        """Names of the nodes of some parts."""
        return [name for part in parts for name in self.nodes[part]]

    def _is_exact(self, node: Any, scopes: list[str]) -> bool:
        if any(scope.endswith("offset") for scope in scopes):
            return True
        return any(scope.startswith(_HEAD) for scope in scopes) and not self._is_activated(node)

    def _is_activated(self, node: Any) -> bool:
        """Whether an activation comes behind it, with nothing but a normalization between."""
        level = [node]
        for _ in range(_STEPS):
            level = [user for each in level for name in each.output for user in self._users(name)]
            if any(user.op_type in _ACTIVATIONS for user in level):
                return True
            level = [user for user in level if _is_norm(scopes_of(user))]
        return False

    def _users(self, name: str) -> list[Any]:
        return self._consumers.get(name, [])


def scopes_of(node: Any) -> list[str]:
    """The modules that a node comes from, the outermost first; its own name is not among them."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            return [str(x) for x in ast.literal_eval(entry.value)[:-1]]
    return []


def _part(scopes: list[str]) -> str | None:
    innermost = scopes[-1] if scopes else ""
    if innermost.startswith(_BOTTOM_UP):
        return innermost.removeprefix(_BOTTOM_UP).split(".")[0]
    if innermost.startswith(_HEAD):
        return "head." + innermost.removeprefix(_HEAD).split(".")[0]
    return "neck" if innermost.startswith(_BACKBONE) else None


def _is_plain(scopes: list[str]) -> bool:
    """Whether that is neither part of a norm nor of the head's arithmetic."""
    return scopes[-1].startswith(_BACKBONE) and not _is_norm(scopes)


def _is_norm(scopes: list[str]) -> bool:
    return bool(scopes) and "norm" in scopes[-1].split(".")[-1]
