"""Conversion of other projects' detectors: recognise, rename, check against a model, write.

Nothing is converted half: every source tensor is renamed or dropped for a stated reason, and when a
model is given the result has exactly its names and shapes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..utils.files import write_atomically
from . import mmdet, yolof
from .describe import describe
from .fitting import COUNTER, ModelOrKeys, Shapes, fit_to_target, target_shapes
from .loading import load_checkpoint
from .rules import (
    RENAMED_RULES,
    SURROUNDING_RULES,
    CheckpointError,
    CheckpointMismatchError,
    ConversionReport,
    Layout,
    Rule,
    add_zero_biases,
    apply_rules,
    errors_name,
    shorten_list,
)
from .tensors import AVERAGED, Weights, fill, find_weights

# Already Detectron2's names, e.g. a training checkpoint of this project: converting it leaves the
# weights only.
OWN_LAYOUT = Layout(
    project="Detectron2-style",
    detector="",
    signature=(r"head\..*", r"backbone\.bottom_up\.stem\..*"),
    rules=(*SURROUNDING_RULES, *RENAMED_RULES, Rule(r".*", r"\g<0>")),
)
LAYOUTS: tuple[Layout, ...] = (*mmdet.LAYOUTS, *yolof.LAYOUTS, OWN_LAYOUT)


def recognise_layout(keys: Iterable[str]) -> Layout:
    """The layout whose signature ``keys`` have.

    Raises:
        CheckpointError: there is none; the message has some keys.
    """
    keys = list(keys)
    for layout in LAYOUTS:
        if layout.matches(keys):
            return layout
    known = ", ".join(dict.fromkeys(x.name.strip() for x in LAYOUTS))
    raise CheckpointError(
        f"unknown checkpoint layout (known: {known}); the first of its {len(keys)} tensors are "
        f"{shorten_list(keys)}"
    )


def find_class_names(checkpoint: Mapping[str, Any]) -> list[str] | None:
    """Class names stored with the weights: ours, or those in MMDetection's ``meta``."""
    meta = checkpoint.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    dataset = meta.get("dataset_meta")
    dataset = dataset if isinstance(dataset, Mapping) else {}
    for names in (
        checkpoint.get("class_names"),
        dataset.get("classes"),
        dataset.get("CLASSES"),
        meta.get("CLASSES"),
    ):
        if isinstance(names, str):  # one class, written without the comma that makes a tuple
            return [names]
        if isinstance(names, Sequence) and names and all(isinstance(n, str) for n in names):
            return list(names)
    return None


def find_category_ids(checkpoint: Mapping[str, Any]) -> list[Any] | None:
    """Category ids of the data that a checkpoint of this project was trained on, by class."""
    ids, names = checkpoint.get("category_ids"), find_class_names(checkpoint)
    if names is None or not isinstance(ids, list) or len(ids) != len(names):
        return None
    return ids


def convert_state_dict(
    source: Mapping[str, Any], model_or_keys: ModelOrKeys | None = None
) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    """Rename the weights in ``source`` to this project's names. Tensors are not copied.

    Args:
        source: a loaded checkpoint with the names of a known project.
        model_or_keys: the model to fill, its state dict or a mapping of names to shapes, or just
            its names. Then the result has exactly these names (and shapes): the batch counters of
            norms that are frozen here are dropped, and those that the source lacks are zero. None
            returns every renamed tensor, counters included.

    Raises:
        CheckpointError: an unknown layout, or one that means other boxes than the given model with
            the same weights; source tensors that no rule knows; values that no weights have
            (:func:`~.tensors.check_weights`).
        CheckpointMismatchError: anything else differs from ``model_or_keys``.
    """
    target = None if model_or_keys is None else target_shapes(model_or_keys)
    converted, report = rename(find_weights(source), model_or_keys, target)
    _check_version(source, report)
    if target is not None:
        fit_to_target(converted, target, report)
    return converted, report


def rename(
    weights: Weights, model_or_keys: ModelOrKeys | None, target: Shapes | None
) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    """As :func:`convert_state_dict`, but not fitted to the target: layers may differ in shape."""
    entry, source = weights
    layout = _choose_layout(source, target)
    _check_geometry(layout, model_or_keys)
    converted, report = apply_rules(source, layout.rules)
    report.entry = entry
    report.layout = layout.name.strip()
    add_zero_biases(converted, layout.zero_biases, report)
    report.description = str(describe({k: tuple(v.shape) for k, v in converted.items()}))
    if report.unmatched:
        raise CheckpointError(
            f"{len(report.unmatched)} of {report.num_source} tensors of this {report.layout} "
            f"checkpoint ({report.description}) are not known: {shorten_list(report.unmatched)}"
        )
    return converted, report


def load_into(
    model: nn.Module, path: str | os.PathLike[str], *, averaged: bool = True
) -> tuple[dict[str, Any], ConversionReport]:
    """Fill ``model`` completely from a checkpoint file.

    Args:
        model: changed in place.
        path: as :func:`~.loading.load_checkpoint` takes it.
        averaged: prefer the moving averages of a training checkpoint that has them.

    Returns:
        What the file holds, and the report.

    Raises:
        CheckpointError: as of :func:`convert_state_dict`, naming the file.
        CheckpointMismatchError: something is missing, left over or of another shape.
    """
    checkpoint = load_checkpoint(path)
    source = checkpoint if averaged else {k: v for k, v in checkpoint.items() if k != AVERAGED}
    with errors_name(path):
        state, report = convert_state_dict(source, model)
        fill(model, state)
    return checkpoint, report


def convert_checkpoint(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: nn.Module,
    record: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], ConversionReport]:
    """Convert the file ``path`` for ``model`` and write ``output`` atomically.

    Args:
        path: as :func:`~.loading.load_checkpoint` takes it.
        output: the file to write.
        model: what it is to fill.
        record: plain values to write beside, such as the configuration.

    Returns:
        What was written, and the report. It is a dict with "model" (tensors), "source" (file name,
        SHA-256, layout, description; all strings) and, when the source names its classes,
        "class_names", with "category_ids" where it has them.

    Raises:
        CheckpointError: an unreadable or unknown file; the message names it, nothing is written.
        CheckpointMismatchError: file and model do not belong together; likewise.
    """
    path = Path(path)
    checkpoint = load_checkpoint(path)
    with errors_name(path):
        converted, report = convert_state_dict(checkpoint, model)
    names = find_class_names(checkpoint)
    extra = dict(record or {})
    if names is not None:
        num_classes = getattr(model, "num_classes", len(names))
        if num_classes != len(names):
            raise CheckpointMismatchError(
                f"{path}: names {len(names)} classes ({shorten_list(names)}) but the model has "
                f"{num_classes}"
            )
        extra["class_names"] = names
        if (ids := find_category_ids(checkpoint)) is not None:
            extra["category_ids"] = ids
    return save_converted(converted, report, path, output, **extra), report


def save_converted(
    converted: Mapping[str, torch.Tensor],
    report: ConversionReport,
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    **extra: Any,
) -> dict[str, Any]:
    """Write ``output`` atomically: "model", "source" (of ``path``) and ``extra``; returns that."""
    result: dict[str, Any] = {
        "model": {key: tensor.detach().contiguous() for key, tensor in converted.items()},
        "source": {
            "file": Path(path).name,
            "sha256": file_sha256(path),
            "layout": report.layout,
            "description": report.description,
        },
        **extra,
    }
    write_atomically(output, lambda file: torch.save(result, file))
    return result


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def hash_in_name(path: str | os.PathLike[str]) -> str | None:
    """First digits of the SHA-256 that published names end in (``...-38db6f58.pth``), if any."""
    match = re.search(r"[-_]([0-9a-f]{8})\.(?:pth|pt|pkl)$", Path(path).name)
    return match[1] if match else None


# Where names and shapes of the weights do not tell what boxes they mean: the difference, the
# configurations that mean these, and those that mean the others.
_GEOMETRIES = {
    "pixel indices": (
        "points half a cell apart, x2 and y2 inside or outside of the box",
        "a gfl/gfocal_... config, e.g. gfl/gfocal_r50_fpn_1x.py, or make model._target_ GFocal and "
        "model.points PixelIndexPoints",
        "the gfl/gfl_... config in place of the gfl/gfocal_... one",
    ),
    "ratio-major anchors": (
        "anchors in another order",
        "a config with OctaveAnchors, e.g. baselines/retinanet_mmdet_r50_fpn_1x.py, or SSDAnchors",
        "a config without OctaveAnchors or SSDAnchors",
    ),
    "anchor deltas": (
        "deltas of an anchor or distances",
        "a config with AnchorDeltas, e.g. atss/atss_r50_fpn_1x.py",
        "a config without AnchorDeltas",
    ),
    "fovea": (
        "distances in other units, from other points",
        "a config of foveabox/",
        "a config of another detector than FoveaBox",
    ),
}


def _check_geometry(layout: Layout, model: Any) -> None:
    """Of some layouts names and shapes do not tell what boxes the weights mean.

    Only a model can be asked; names alone are taken as they are.
    """
    if not isinstance(model, nn.Module) or layout is OWN_LAYOUT:
        return
    of_model = getattr(model, "box_geometry", "")
    if of_model != layout.box_geometry:
        difference, these, others = _GEOMETRIES[layout.box_geometry or of_model]
        raise CheckpointMismatchError(
            f"this is a {layout.name.strip()} checkpoint, whose weights mean other boxes than the "
            f"configuration's ({difference}): it would load and lose AP; use "
            f"{these if layout.box_geometry else others}"
        )


def _check_version(checkpoint: Mapping[str, Any], report: ConversionReport) -> None:
    """MMDetection 1.x has other boxes, anchors and (SSD) the background first, by the same names.

    Only a file that says so can be told. (GFL's first release has a layout of its own.)
    """
    meta = checkpoint.get("meta")
    version = meta.get("mmdet_version") if isinstance(meta, Mapping) else None
    if report.layout in _NOT_OF_1X and str(version).startswith("1."):
        raise CheckpointError(
            f"this {report.layout} checkpoint was written by MMDetection {version}, whose boxes "
            "and classes are others than those of 2.x and 3.x, which are read here; take the file "
            "that MMDetection publishes for 2.x or 3.x"
        )


_NOT_OF_1X = {f"{mmdet.PROJECT} {x}" for x in ("RetinaNet", "ATSS", "FoveaBox", "RepPoints", "SSD")}


def _choose_layout(source: Mapping[str, torch.Tensor], target: Iterable[str] | None) -> Layout:
    """A source that has all names of the model needs no table."""
    if target is not None and all(k in source or k.endswith(COUNTER) for k in target):
        return OWN_LAYOUT
    return recognise_layout(source)
