"""What the processes of tests/modeling/test_distributed.py run.

A module of its own on the path: a spawned process imports it by name.
"""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny import tiny_atss, tiny_gfl, tiny_vfnet, tiny_yolof
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from vfnet_yolof.engine.launch import leave
from vfnet_yolof.engine.step import TrainStep
from vfnet_yolof.modeling.backbones import CSPDarkNet


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


class SquaredFeatures(nn.Module):
    """A CSPDarkNet with common statistics; its loss is the mean square of its features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        backbone = CSPDarkNet(stem_channels=4, norm="naiveSyncBN", res5_dilation=2)
        self.backbone = backbone.double()  # fifty norms one after the other amplify rounding

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        images = torch.stack([picture["image"] for picture in batch])
        return {"loss": self.backbone(images.double() / 255)["res5"].square().mean()}


MODELS = {
    "vfnet": tiny_vfnet,
    "atss": tiny_atss,
    "gfl": sure_gfl,
    "yolof": yolof_with_running_statistics,
    "yolof, synchronised": yolof_with_common_statistics,
    "cspdarknet, synchronised": SquaredFeatures,
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


@contextmanager
def together(folder: Path, rank: int, world_size: int) -> Iterator[None]:
    """A process group that meets in ``folder``; one thread for each process, which ends with it.

    As the engine's own processes it leaves at once: gloo's threads may abort Python's tear-down.
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=60),
    )
    yield
    dist.barrier()  # nobody leaves while others still talk to it
    leave(0)


def run_rank(rank: int, world_size: int, folder: str, cases: list[tuple[str, str]]) -> None:
    """For each (model, batches) train one step on this rank's part of ``folder/batches.pt``.

    Writes ``<rank>.pt``: a list of :func:`step`'s results.
    """
    root = Path(folder)
    with together(root, rank, world_size):
        batches = torch.load(root / "batches.pt", weights_only=False)
        results = []
        for name, case in cases:
            # No buffer needs sending: statistics are static, or the same on all ranks anyway.
            model = DistributedDataParallel(MODELS[name](), broadcast_buffers=False)
            results.append(step(model, batches[case][rank]))
        torch.save(results, root / f"{rank}.pt")


def accumulate_rank(rank: int, world_size: int, folder: str) -> None:
    """One step on this rank's half of ``folder/batch.pt``, in two parts.

    Writes ``<rank>.pt``: losses and gradients.
    """
    root = Path(folder)
    with together(root, rank, world_size):
        batch = torch.load(root / "batch.pt", weights_only=False)
        model = DistributedDataParallel(tiny_vfnet(), broadcast_buffers=False)
        step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.0), accumulate=2)
        losses = step(batch[2 * rank : 2 * rank + 2], 0).losses
        grads = {k: p.grad for k, p in model.module.named_parameters()}
        torch.save([losses, grads], root / f"{rank}.pt")
