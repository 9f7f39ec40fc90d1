"""Making a renamed state dict fit a model exactly, or saying where it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn

from .describe import describe
from .rules import CheckpointMismatchError, ConversionReport, shorten_list

COUNTER = ".num_batches_tracked"

ModelOrKeys = nn.Module | Mapping[str, Any] | Iterable[str]
Shapes = Mapping[str, tuple[int, ...] | None]


def target_shapes(model_or_keys: ModelOrKeys) -> dict[str, tuple[int, ...] | None]:
    """Names and shapes of the target; shape ``None`` where only names are known."""
    if isinstance(model_or_keys, nn.Module):
        model_or_keys = model_or_keys.state_dict()
    if isinstance(model_or_keys, Mapping):
        return {
            key: tuple(value.shape if torch.is_tensor(value) else value)
            for key, value in model_or_keys.items()
        }
    return dict.fromkeys(model_or_keys, None)


def fit_to_target(
    converted: dict[str, torch.Tensor], target: Shapes, report: ConversionReport
) -> None:
    """Add or drop batch counters, in place, and check that names and shapes are the target's.

    Raises:
        CheckpointMismatchError: they are not; the message has the first that differ.
    """
    match_and_report(converted, target, report)
    _check_against(converted, target, report)


def match_and_report(
    converted: MutableMapping[str, torch.Tensor], target: Iterable[str], report: ConversionReport
) -> None:
    """:func:`match_counters`, with what it did in the report."""
    dropped, added = match_counters(converted, target)
    for key in dropped:
        report.drop_target(key, "batch counter of a norm that is frozen here")
    for key in added:
        report.added[key] = "batch counter that the source does not store"


def match_counters(
    weights: MutableMapping[str, torch.Tensor], names: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Give ``weights`` the batch counters that a model with tensors of these names has.

    Trainable norms have one; frozen ones have none in Detectron2 0.6 and one in its main branch. No
    weight depends on it. Counters of norms that the other side does not have stay as they are.

    Returns:
        names of the counters that were dropped, and of those that were added, with value 0.
    """
    names = set(names)
    dropped, added = [], []
    for key in [k for k in weights if k.endswith(COUNTER) and k not in names]:
        if f"{key.removesuffix(COUNTER)}.running_mean" in names:
            del weights[key]
            dropped.append(key)
    for key in sorted(names):
        mean = f"{key.removesuffix(COUNTER)}.running_mean"
        if key.endswith(COUNTER) and key not in weights and mean in weights:
            weights[key] = torch.tensor(0)
            added.append(key)
    return dropped, added


def load_whole(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """``model.load_state_dict(weights)``, with the batch counters that this Detectron2 has.

    Raises:
        RuntimeError: names or shapes of other tensors differ.
    """
    weights, names = dict(weights), model.state_dict().keys()
    match_counters(weights, names)
    # Detectron2's frozen norms take statistics that are missing for those of old files, silently.
    missing = [name for name in names if name not in weights]
    if missing:
        raise RuntimeError(f"tensors are missing:\n{shorten_list(missing)}")
    model.load_state_dict(weights)


def _check_against(
    converted: Mapping[str, torch.Tensor],
    target: Shapes,
    report: ConversionReport,
) -> None:
    missing = [key for key in target if key not in converted]
    unexpected = [key for key in converted if key not in target]
    shapes = [
        f"{key} {tuple(tensor.shape)} against {target[key]}"
        for key, tensor in converted.items()
        if target.get(key) is not None and tuple(tensor.shape) != target[key]
    ]
    if not (missing or unexpected or shapes):
        return
    lines = ["checkpoint and model do not fit."]
    if report.description:
        lines.append(f"checkpoint is {report.description};")
    known = {key: shape for key, shape in target.items() if shape is not None}
    if len(known) == len(target):
        lines.append(f"the configuration builds {describe(known)}.")
    if missing:
        lines.append(f"{len(missing)} tensors are not in the checkpoint: {shorten_list(missing)}.")
    if unexpected:
        lines.append(f"{len(unexpected)} have no place in the model: {shorten_list(unexpected)}.")
    if shapes:
        lines.append(f"{len(shapes)} differ in shape: {shorten_list(shapes)}.")
    if shapes and not missing and not unexpected and all("cls_logits" in s for s in shapes):
        lines.append(
            "Only the number of classes differs: set model.num_classes to the checkpoint's (the "
            "config.yaml of a run has it); to train on other classes, start with --weights."
        )
    raise CheckpointMismatchError("\n  ".join(lines))
