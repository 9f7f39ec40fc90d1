"""Finding a model's tensors in what a file holds, and checking that they can be weights.

Every way in takes its tensors from here, so that one file gives the same tensors everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .pickles import MARGIN, Unreadable
from .rules import CheckpointError, CheckpointMismatchError, shorten_list

# This project's moving averages, which evaluation prefers to the weights under "model".
AVERAGED = "ema"
# Where projects keep the tensors inside the file. MMEngine's and MMCV's EMA hooks save the averaged
# weights under "state_dict" (and the running ones beside it), so "ema_state_dict" comes last: for
# files that have nothing else. "blobs" is Detectron1's.
_ENTRIES = (
    AVERAGED,
    "state_dict",
    "model",
    "model_state",
    "model_state_dict",
    "blobs",
    "ema_state_dict",
)
# DistributedDataParallel and AveragedModel, torch.compile, Lightning; they nest.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_MAX_NESTED = 4
# Stand beside the prefixed names in files of averaged models.
_COUNTERS = ("n_averaged", "steps", "num_updates")
# What layers compute with, by the names of PyTorch and Caffe2; the rest may be counters or indices.
_COMPUTED = re.compile(r"(?:.*[._])?(?:weight|bias|running_mean|running_var|w|b|s|rm|riv)")


class Weights(NamedTuple):
    """entry: name under which the file has them, "" for the whole file. tensors: by their names."""

    entry: str
    tensors: dict[str, Tensor]


def find_weights(checkpoint: Mapping[str, Any], *, averaged: bool = True) -> Weights:
    """The model's tensors in a loaded checkpoint, out of all wrappers and prefixes, and checked.

    Args:
        checkpoint: as :func:`~.loading.load_checkpoint` returns it.
        averaged: prefer this project's moving averages, where the file has them.

    Raises:
        CheckpointError: the file holds no named tensors, or they cannot be weights
            (:func:`check_weights`).
    """
    found = locate_weights(checkpoint, averaged=averaged)
    check_weights(found)
    return found


def locate_weights(checkpoint: Mapping[str, Any], *, averaged: bool = True) -> Weights:
    """As :func:`find_weights`, without a look at the numbers."""
    state: Mapping[str, Any] = checkpoint
    entry = ""
    for name in _ENTRIES if averaged else _ENTRIES[1:]:
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping) and any(torch.is_tensor(v) for v in inner.values()):
            state, entry = inner, name
            break
    unread = [f"{k} ({v.class_name})" for k, v in state.items() if _is_odd_tensor(v)]
    if unread:
        raise CheckpointError(
            f"{len(unread)} tensors are of a kind that is not read (sparse, quantized and the "
            f"like): {shorten_list(unread)}; save them as plain ones"
        )
    tensors = {str(k): v for k, v in state.items() if torch.is_tensor(v)}
    if not tensors:
        found = shorten_list([str(name) for name in checkpoint]) or "nothing"
        raise CheckpointError(
            f"no model weights in the file, which has: {found}; save the model's state_dict()"
        )
    for _ in range(_MAX_NESTED):
        stripped = _strip_prefix(tensors)
        if stripped is None:
            break
        tensors = stripped
    return Weights(entry, tensors)


def check_weights(weights: Weights) -> None:
    """That the numbers can be weights, whatever the model is.

    Raises:
        CheckpointError: tensors are complex, have NaN or infinite values, or are integers under a
            name that layers compute with; the message has their names and counts. Or one storage
            is seen so often that copies of all would fill the memory.
    """
    where = f" under {weights.entry!r}" if weights.entry else ""
    real = [tensor for tensor in weights.tensors.values() if not tensor.is_meta]
    stored = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in real}
    seen = sum(tensor.nbytes for tensor in real)
    if seen > sum(stored.values()) + MARGIN:
        raise CheckpointError(
            f"the tensors{where} would take {seen / 1e9:.1f} GB, but only "
            f"{sum(stored.values()) / 1e9:.3f} GB of numbers are stored for them; the file is "
            "damaged, or made to fill the memory; fetch it again from where you trust it"
        )
    typed = [f"{k} ({_type(v)})" for k, v in weights.tensors.items() if not _may_be_weight(k, v)]
    if typed:
        raise CheckpointError(
            f"{len(typed)} of {len(weights.tensors)} tensors{where} have a type that weights "
            f"cannot have: {shorten_list(typed)}; save them as float32"
        )
    bad = [f"{k} ({n} of {v.numel()})" for k, v in weights.tensors.items() if (n := not_finite(v))]
    if bad:
        raise CheckpointError(
            f"{len(bad)} of {len(weights.tensors)} tensors{where} have values that are NaN or "
            f"infinite: {shorten_list(bad)}; use a checkpoint from before the training diverged"
        )


def check_contents(checkpoint: Mapping[str, Any]) -> None:
    """That a training can go on from all that is in its checkpoint, optimizer and averages too.

    Raises:
        CheckpointError: a floating-point tensor has values that are not finite, or something was
            not read.
    """
    check_weights(Weights("model", locate_weights(checkpoint, averaged=False).tensors))
    looked_at: set[int] = set()
    for name, value in _leaves(checkpoint, ""):
        if id(value) in looked_at:
            continue
        looked_at.add(id(value))
        if isinstance(value, Unreadable):
            raise CheckpointError(
                f"{name}: is a {value.class_name}, which is not read; the file is not as this "
                "trainer wrote it"
            )
        if torch.is_tensor(value) and (count := not_finite(value)):
            raise CheckpointError(
                f"{name}: {count} of {value.numel()} values are NaN or infinite; training diverged "
                "before it was written"
            )


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors``, whose names and shapes are the model's, into it; others stay as they are.

    Floating-point types are cast to the model's.

    Raises:
        CheckpointMismatchError: integers where the model has floating-point numbers.
    """
    own = model.state_dict()
    typed = [
        f"{name} ({_type(tensor)}, the model has {_type(own[name])})"
        for name, tensor in tensors.items()
        if own[name].is_floating_point() and not tensor.is_floating_point()
    ]
    if typed:
        raise CheckpointMismatchError(
            f"{len(typed)} tensors are not floating-point numbers: {shorten_list(typed)}; save "
            "them as float32"
        )
    model.load_state_dict(dict(tensors), strict=False)


def not_finite(tensor: Tensor) -> int:
    """How many values are NaN or infinite, or would be in float32, in which models compute.

    0 for integers, and for tensors without values.
    """
    if not tensor.is_floating_point() or tensor.is_meta:
        return 0
    if tensor.dtype.itemsize == 1:  # the 8-bit types have no isfinite of their own
        tensor = tensor.float()
    finite = tensor.isfinite()
    if tensor.dtype == torch.float64:
        finite &= tensor.abs() <= torch.finfo(torch.float32).max
    return 0 if finite.all() else int((~finite).sum())


def _may_be_weight(name: str, tensor: Tensor) -> bool:
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype.itemsize == 1):
        return False  # the 8-bit types come with scales that are not here
    return tensor.is_floating_point() or not _COMPUTED.fullmatch(name)


def _is_odd_tensor(value: Any) -> bool:
    return isinstance(value, Unreadable) and value.class_name.startswith(
        ("torch._utils.", "torch._tensor.", "torch.Tensor")
    )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _strip_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Without the prefix that most names have; None where there is none."""
    names = [name for name in tensors if name not in _COUNTERS]
    for prefix in _PREFIXES:
        if 2 * sum(name.startswith(prefix) for name in names) > len(names):
            stripped = {name.removeprefix(prefix): value for name, value in tensors.items()}
            if len(stripped) < len(tensors):
                twice = [n for n in tensors if n.startswith(prefix) and n[len(prefix) :] in tensors]
                raise CheckpointError(
                    f"has tensors twice, with and without {prefix!r}: {shorten_list(twice)}; keep "
                    "one of them"
                )
            return stripped
    return None


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{name}[{number}]")
    else:
        yield name, value
