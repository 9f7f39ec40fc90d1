"""Making a renamed state dict fit a model exactly, or saying where it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    match_counters(converted, target, report)
    _check_against(converted, target, report)


def match_counters(
    converted: dict[str, torch.Tensor],
    target: Shapes,
    report: ConversionReport,
) -> None:
    """Frozen norms have no batch counter and trainable ones have one; no weight depends on it."""
    for key in [k for k in converted if k.endswith(COUNTER) and k not in target]:
        if f"{key.removesuffix(COUNTER)}.running_mean" in target:
            del converted[key]
            report.drop_target(key, "batch counter of a norm that is frozen here")
    for key in target:
        mean = f"{key.removesuffix(COUNTER)}.running_mean"
        if key.endswith(COUNTER) and key not in converted and mean in converted:
            converted[key] = torch.tensor(0)
            report.added[key] = "batch counter that the source does not store"


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
    if all(shape is not None for shape in target.values()):
        lines.append(f"the configuration builds {describe(target)}.")  # type: ignore[arg-type]
    if missing:
        lines.append(f"{len(missing)} tensors are not in the checkpoint: {shorten_list(missing)}.")
    if unexpected:
        lines.append(f"{len(unexpected)} have no place in the model: {shorten_list(unexpected)}.")
    if shapes:
        lines.append(f"{len(shapes)} differ in shape: {shorten_list(shapes)}.")
    if shapes and not missing and not unexpected and all("cls_logits" in s for s in shapes):
        lines.append(
            "Only the number of classes differs: set model.num_classes to the checkpoint's (the "
            "config.yaml of a run has it); to train on other classes, start with --init-from."
        )
    raise CheckpointMismatchError("\n  ".join(lines))
