"""Training in less memory: activation checkpointing and gradient accumulation."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from detectron2.layers import CNNBlockBase
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config.options import ConfigError
from ..modeling.losses.normalizer import recorded_normalizers, whole_batch_normalizers
from ..utils.state import kept_rng_state

T = TypeVar("T")


def checkpoint_activations(model: nn.Module) -> int:
    """Let trained blocks of ``model.backbone`` keep their inputs only.

    They are computed again in the backward pass. Gradients are the same bit for bit, and so are the
    running statistics of batch norms, which count a batch once. Blocks are Detectron2's
    ``CNNBlockBase``; names of weights stay as they are.

    Returns:
        The number of these blocks.

    Raises:
        ConfigError: the model has no backbone with such blocks.
    """
    backbone = getattr(model, "backbone", None)
    blocks = [] if backbone is None else _outermost_blocks(backbone)
    trained = [b for b in blocks if any(p.requires_grad for p in b.parameters())]
    if not trained:
        raise ConfigError(
            "train.activation_checkpointing: the backbone has no trained CNNBlockBase blocks "
            "(ResNet, Res2Net and CSPDarkNet are made of them)."
        )
    for block in trained:
        block.forward = functools.partial(_forward, block)  # also where the model is copied
    return len(trained)


def _outermost_blocks(module: nn.Module) -> list[CNNBlockBase]:
    if isinstance(module, CNNBlockBase):
        return [module]
    return [block for child in module.children() for block in _outermost_blocks(child)]


def _forward(block: nn.Module, *inputs: Any) -> Any:
    forward = type(block).forward
    if not (block.training and torch.is_grad_enabled()):
        return forward(block, *inputs)
    return checkpoint(
        forward,
        block,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), kept_statistics(block)),
    )


@contextlib.contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms normalise as always, but their running statistics stay as they are."""
    kept = [
        (norm, norm.momentum, norm.num_batches_tracked, norm.num_batches_tracked.clone())
        for norm in module.modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and norm.training
        and norm.track_running_stats
        and norm.num_batches_tracked is not None
    ]
    for norm, *_ in kept:
        norm.momentum = 0.0  # running * (1 - 0) + 0 * batch: not the last bit changes
    try:
        yield
    finally:
        for norm, momentum, counter, count in kept:
            norm.momentum = momentum
            counter.copy_(count)


def split_batch(batch: Sequence[T], count: int) -> list[Sequence[T]]:
    """The parts of a batch for gradient accumulation: ``count`` of nearly equal length, in order.

    Raises:
        ConfigError: there are fewer images than parts.
    """
    if len(batch) < count:
        raise ConfigError(
            f"train.accumulate={count}: a process has only {len(batch)} images per iteration "
            "(dataloader.train.total_batch_size)."
        )
    ends = [len(batch) * k // count for k in range(count + 1)]
    return [batch[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]


@torch.no_grad()
def batch_normalizers(
    model: nn.Module, parts: Sequence[Sequence[Mapping[str, Any]]], autocast: torch.autocast
) -> list[Tensor]:
    """Normalizers of the losses of a whole batch, by a forward pass of each of its parts.

    The model and the random state are left as they were.

    Args:
        model: without a distributed wrapper; it normalizes its losses by ``synced_mean``.
        parts: see :func:`split_batch`.
        autocast: as in training.

    Returns:
        One scalar for each call of ``synced_mean`` in a forward pass.

    Raises:
        ConfigError: the model's losses are normalized otherwise.
    """
    recorded = []
    # The parts draw the same random numbers again in the pass with gradients.
    with kept_rng_state(), kept_statistics(model), autocast, EventStorage():
        for part in parts:
            with recorded_normalizers() as values:
                model(part)
            recorded.append(values)
    try:
        return whole_batch_normalizers(recorded)
    except ValueError as error:
        raise ConfigError(f"train.accumulate={len(parts)}: {error}") from error
