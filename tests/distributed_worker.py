"""What the processes of tests/modeling/test_distributed.py run.

A module of its own on the path: a spawned process imports it by name.
"""

import datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny import tiny_atss, tiny_gfl, tiny_vfnet, tiny_yolof
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def sure_gfl() -> nn.Module:
    """A GFL with scores of about a half.

    They weight its boxes. Of a new model's scores the sum is below 1, where every worker divides by
    1 instead, and two of them descend on half of what one does, as in the reference.
    """
    return tiny_gfl(head__prior_prob=0.5)


def yolof_with_running_statistics() -> nn.Module:
    model = tiny_yolof()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def yolof_with_common_statistics() -> nn.Module:
    """Batch norms that see the whole batch; PyTorch's own refuse the CPU."""
    return tiny_yolof(backbone__norm="naiveSyncBN", head__norm="naiveSyncBN")


MODELS = {
    "vfnet": tiny_vfnet,
    "atss": tiny_atss,
    "gfl": sure_gfl,
    "yolof": yolof_with_running_statistics,
    "yolof, synchronised": yolof_with_common_statistics,
}


def step(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses and gradients of one training step."""
    losses = model(batch)
    sum(losses.values()).backward()
    module = model.module if isinstance(model, DistributedDataParallel) else model
    return {
        "losses": {k: v.item() for k, v in losses.items()},
        "grads": {k: p.grad for k, p in module.named_parameters()},
    }


def run_rank(rank: int, world_size: int, folder: str, cases: list[tuple[str, str]]) -> None:
    """For each (model, batches) train one step on this rank's part of ``folder/batches.pt``.

    Writes ``<rank>.pt``: a list of :func:`step`'s results.
    """
    torch.set_num_threads(1)
    root = Path(folder)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{root / 'rendezvous'}",
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=60),
    )
    try:
        batches = torch.load(root / "batches.pt", weights_only=False)
        results = []
        for name, case in cases:
            # No buffer needs sending: statistics are static, or the same on all ranks anyway.
            model = DistributedDataParallel(MODELS[name](), broadcast_buffers=False)
            results.append(step(model, batches[case][rank]))
        torch.save(results, root / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
