"""The mean of several checkpoint files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..utils.class_names import UNKNOWN, Classes, differences
from .convert import find_class_names
from .loading import load_checkpoint
from .rules import CheckpointError, CheckpointMismatchError, errors_name, shorten_list
from .tensors import find_weights

_RECORD = ("class_names", "category_ids", "config", "config_file", "seed", "iteration", "versions")


def average_checkpoints(inputs: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """What a file with the mean of ``inputs`` holds; they are read one at a time.

    Floating-point tensors are summed in float64 and averaged, others are the last file's. Files
    of a training run are averaged in their ``model`` entry (not in their moving average), those of
    other projects where they have their weights, under the names without wrappers' prefixes. The
    result is ``{"model": ..., "averaged_from": names}`` with the last file's class names; plain
    state dicts make a plain state dict.

    Raises:
        CheckpointMismatchError: tensors of two files differ in name, shape or type, or their
            classes in name or order.
        CheckpointError: no file is given, or one cannot be read or has no tensors.
        FileNotFoundError: a file does not exist.
    """
    if not inputs:
        raise CheckpointError("no checkpoints to average")
    total: dict[str, Tensor] = {}
    types: dict[str, tuple[torch.Size, torch.dtype]] = {}
    content: Mapping[str, Any] = {}
    entry = ""
    classes = UNKNOWN
    for path in inputs:
        content = load_checkpoint(path)
        classes = _same_classes(classes, Classes(find_class_names(content) or [], str(path)))
        with errors_name(path):
            entry, tensors = find_weights(content, averaged=False)
        described = {name: (x.shape, x.dtype) for name, x in tensors.items()}
        types = types or described
        _check_same(types, described, inputs[0], path)
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                total[name] = tensor
            elif name in total:
                total[name] += tensor
            else:
                total[name] = tensor.to(torch.float64, copy=True)
    mean = {
        name: (x / len(inputs)).to(types[name][1]) if x.is_floating_point() else x
        for name, x in total.items()
    }
    if not entry:
        return mean
    record = {name: content[name] for name in _RECORD if name in content}
    return {"model": mean, "averaged_from": [os.fspath(path) for path in inputs], **record}


def _same_classes(first: Classes, other: Classes) -> Classes:
    if first.names and other.names and first.names != other.names:
        raise CheckpointMismatchError(
            f"{first.owner} and {other.owner} have different classes or another order, so their "
            f"mean would be of no use: {differences(first, other)}"
        )
    return first if first.names else other


def _check_same(
    want: Mapping[str, tuple[torch.Size, torch.dtype]],
    got: Mapping[str, tuple[torch.Size, torch.dtype]],
    first: str | os.PathLike[str],
    path: str | os.PathLike[str],
) -> None:
    problems = [
        f"{name}: {_said(want.get(name))} and {_said(got.get(name))}"
        for name in sorted(want.keys() | got.keys())
        if want.get(name) != got.get(name)
    ]
    if problems:
        raise CheckpointMismatchError(
            f"{first} and {path} are not of one model: {shorten_list(problems, 4)}"
        )


def _said(described: tuple[torch.Size, torch.dtype] | None) -> str:
    if described is None:
        return "missing"
    shape, dtype = described
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')}"
