"""Detectors as ONNX files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..layers.deform_conv import deform_conv_implementation
from ..runtime.metadata import KEY
from .graph import DetectorGraph
from .onnx_operators import deform_by_grid_sample, suppress

OPSETS = {"gridsample": 20, "deformconv": 22}
OUTPUTS = {True: ("boxes", "scores", "classes", "count"), False: ("boxes", "scores")}


def onnx_model(
    graph: DetectorGraph,
    example: Tensor,
    *,
    static: bool,
    deform: str = "gridsample",
) -> Any:
    """``graph`` as an ``onnx.ModelProto``.

    Args:
        example: (N, 3, H, W).
        static: the example's height and width are the only ones. The batch is always free.
        deform: how deformable convolutions are written: "gridsample", which all programs run, or
            "deformconv", ONNX's own operator.
    """
    with quiet(), deform_conv_implementation("torchvision"), torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSETS[deform],
            input_names=["images"],
            output_names=list(OUTPUTS[graph.suppression is not None]),
            # Names, not ranges: a range that reaches down to 1 makes torch.export fail, after which
            # the exporter tries slower ways. The file itself takes all sizes.
            dynamic_shapes=({0: "batch"} if static else {0: "batch", 2: "height", 3: "width"},),
            custom_translation_table=_translations(deform),
            optimize=False,
            verbose=False,
        )
        assert program is not None  # as it is with dynamo=True
        _simplify(program.model)
    return program.model_proto


def _simplify(model: Any) -> None:
    """Fold constants and drop what is not used, in an ``onnx_ir.Model``.

    ``onnxscript.optimizer.optimize_ir`` also matches patterns at every node, which takes as long as
    all of this several times over; onnxruntime and OpenVINO do the like when they open the file.
    """
    from onnx_ir import passes
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants_ir

    common.InlinePass()(model)
    fold_constants_ir(model)
    steps = (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    passes.Sequential(*steps)(model)


def save_onnx(model: Any, path: Path, metadata: str) -> None:
    """Write an ``onnx.ModelProto`` without what the exporter notes at its nodes.

    These notes name the modules, which :class:`.Parts` reads, and lines of this machine's files.
    """
    import onnx

    written = onnx.ModelProto()
    written.CopyFrom(model)
    for node in written.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*written.graph.value_info, *written.graph.input, *written.graph.output]:
        del value.metadata_props[:]
    onnx.helper.set_model_props(written, {KEY: metadata})
    onnx.save(written, str(path))


def with_threshold(model: Any, threshold: float) -> Any:
    """A copy of an ``onnx.ModelProto`` of :func:`onnx_model` with another score threshold."""
    import onnx
    from onnx import numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (entry,) = (x for x in changed.graph.initializer if x.name == "score_thresh")
    entry.CopyFrom(numpy_helper.from_array(np.array(threshold, np.float32), entry.name))
    return changed


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters' warnings about their own inside are nobody's business."""
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def _translations(deform: str) -> dict[Callable[..., Any], Callable[..., Any]]:
    """How operators that are not torch's own are written."""
    table: dict[Callable[..., Any], Callable[..., Any]] = {
        torch.ops.vfnet_yolof.suppress.default: suppress
    }
    if deform == "gridsample":
        table[torch.ops.torchvision.deform_conv2d.default] = deform_by_grid_sample
    return table
