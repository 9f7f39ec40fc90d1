"""Activation checkpointing: blocks of the backbone are computed again in the backward pass."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.layers import CNNBlockBase
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..config.options import ConfigError


def recompute_backbone(model: nn.Module) -> int:
    """Let the trained blocks of ``model.backbone`` keep their inputs only; returns their number.

    Gradients are the same bit for bit, and so are the running statistics of batch norms, which
    count a batch once. Blocks are Detectron2's ``CNNBlockBase``; names of weights stay as they are.

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
    """Batch norms normalise as always, but do not count what they see."""
    kept = [
        (norm, norm.momentum, norm.num_batches_tracked.clone())
        for norm in module.modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and norm.training
        and norm.track_running_stats
    ]
    for norm, _, _ in kept:
        norm.momentum = 0.0  # running * (1 - 0) + 0 * batch: not the last bit changes
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
