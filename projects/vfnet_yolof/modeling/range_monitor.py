"""How many box sides lie beyond what a representation can express."""

import warnings

import torch
from torch import Tensor, nn

from .events import log_scalar

WARN_ABOVE = 0.01


class RangeMonitor(nn.Module):
    """Counts targets beyond a limit over the whole training, and warns once above 1 %.

    Only passes with gradients count: they are those that train. Validation losses and the first
    of gradient accumulation's two passes over a batch are computed without.

    Counting stays on the device. Every ``period`` counted passes the counts are read, which waits
    for the device, and their ratio is logged as ``dfl_out_of_range``; no other step waits. In
    distributed training every worker counts its own share of the data.

    Args:
        limit: longest distance that can be expressed, in strides.
        period: counted passes between two readings.
    """

    def __init__(self, limit: float, period: int = 100) -> None:
        super().__init__()
        self.limit = limit
        self.period = period
        self.warned = False
        self._steps = 0
        # Not part of checkpoints: a resumed run counts anew.
        for name in ("beyond", "total"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, ltrb: Tensor) -> None:
        """Count distances (P, 4) in strides, if this is a pass with gradients."""
        if torch.is_grad_enabled():
            self._count(ltrb.detach())

    @torch.no_grad()
    def _count(self, ltrb: Tensor) -> None:
        self.beyond += (ltrb > self.limit).sum()
        self.total += ltrb.numel()
        self._steps += 1
        if self._steps % self.period == 0:
            self._report()

    def _report(self) -> None:
        beyond, total = torch.stack([self.beyond, self.total]).tolist()
        ratio = beyond / max(1, total)
        log_scalar("dfl_out_of_range", ratio)
        if ratio > WARN_ABOVE and not self.warned:
            self.warned = True
            warnings.warn(
                f"{ratio:.1%} of the box sides seen so far are longer than the {self.limit:g} "
                "strides that the head can express, and their boxes will come out too small: raise "
                "reg_max (model.head.representation.reg_max, or MODEL.GFL.REG_MAX) or add "
                "coarser levels",
                stacklevel=2,
            )
