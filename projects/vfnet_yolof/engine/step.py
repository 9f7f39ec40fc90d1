"""One training step: forward, check, backward, clip, update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn

from .options import ConfigError

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class GradientClipping:
    """Largest allowed norm (or, for kind "value", element) of the gradients.

    kind: "model" takes the norm over all gradients together, "parameter" that of each tensor.
    """

    max_norm: float
    norm_type: float = 2.0
    kind: str = "model"

    def __call__(self, params: Sequence[nn.Parameter]) -> None:
        if self.kind == "value":
            nn.utils.clip_grad_value_(params, self.max_norm)
        elif self.kind == "parameter":
            for param in params:
                nn.utils.clip_grad_norm_(param, self.max_norm, self.norm_type)
        else:
            nn.utils.clip_grad_norm_(params, self.max_norm, self.norm_type)


class StepResult(NamedTuple):
    """losses: name -> value averaged over the processes. stop: some process was asked to stop."""

    losses: dict[str, float]
    stop: bool


class _HostCopy:
    """Scalars on their way to the host, without making it wait for work queued after them."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.is_cuda:
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))
        else:
            self._host = values

    def wait(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()


class TrainStep:
    """Trains ``model`` on a batch at each call.

    The losses are checked before any weight changes. On a GPU their values are copied to the host
    behind the forward pass and waited for after the backward pass has been queued: the device has
    work all the while, and the update happens only when the values are known to be finite.

    Args:
        model: batch -> dict of weighted scalar losses; may be wrapped for distributed training.
        optimizer: over its parameters.
        device: where the model is.
        amp_dtype: None for float32, or "float16" / "bfloat16". Gradients are scaled for float16
            only; bfloat16 has the range of float32.
        clip: gradient clipping, on unscaled gradients.

    Raises:
        ConfigError: float16 on a CPU.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device | str = "cpu",
        amp_dtype: str | None = None,
        clip: GradientClipping | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.device = torch.device(device)
        self.clip = clip
        if amp_dtype is not None and amp_dtype not in AMP_DTYPES:
            raise ConfigError(f"train.amp.dtype={amp_dtype!r}: one of {', '.join(AMP_DTYPES)}.")
        if amp_dtype == "float16" and self.device.type != "cuda":
            raise ConfigError(
                "Training in float16 needs a CUDA device; on the CPU set train.amp.dtype=bfloat16 "
                "or train.amp.enabled=False."
            )
        self.amp_dtype = AMP_DTYPES.get(amp_dtype or "")
        scaled = self.amp_dtype is torch.float16
        self.grad_scaler = torch.amp.GradScaler("cuda") if scaled else None

    def __call__(
        self, batch: Sequence[Mapping[str, Any]], iteration: int, *, stop: bool = False
    ) -> StepResult:
        """Update the weights once.

        stop: whether this process was asked to stop. It travels with the losses, so that all
        processes learn of it in the same iteration.

        Raises:
            FloatingPointError: a loss is infinite or NaN; names it, the iteration and the images.
                The weights are as they were before the call.
        """
        with torch.autocast(
            self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        ):
            losses = self.model(batch)
        names = sorted(losses)  # the same order on every process
        stacked = torch.stack([losses[name].float() for name in names])
        values = _HostCopy(_local_and_mean(stacked.detach(), stop))
        if self.device.type != "cuda":
            result = _checked(names, values.wait(), batch, iteration)
            self._backward(stacked.sum())
        else:
            self._backward(stacked.sum())
            result = _checked(names, values.wait(), batch, iteration)
        self._update()
        return result

    def _backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.grad_scaler is not None:
            loss = self.grad_scaler.scale(loss)
        loss.backward()

    def _update(self) -> None:
        scaler = self.grad_scaler
        if self.clip is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            params = [p for g in self.optimizer.param_groups for p in g["params"]]
            self.clip([p for p in params if p.grad is not None])
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()


def _local_and_mean(losses: Tensor, stop: bool) -> Tensor:
    """(2 * n + 1,): n losses of this process, their means over the processes, share of stops."""
    mean = torch.cat([losses, losses.new_full((1,), float(stop))])
    if comm.get_world_size() > 1:
        # Every process learns of a bad loss anywhere, so that all stop at the same iteration.
        dist.all_reduce(mean)
        mean /= comm.get_world_size()
    return torch.cat([losses, mean])


def _checked(
    names: list[str], values: list[float], batch: Sequence[Mapping[str, Any]], iteration: int
) -> StepResult:
    local, mean, stop = values[: len(names)], values[len(names) : -1], values[-1]
    if all(map(_finite, mean)):
        return StepResult(dict(zip(names, mean, strict=True)), stop > 0)
    bad = [f"{n} = {v}" for n, v in zip(names, local, strict=True) if not _finite(v)]
    if bad:
        files = [str(x.get("file_name", "an image without file_name")) for x in batch]
        where = "images of the batch: " + ", ".join(files)
    else:
        bad = [f"{n} = {v}" for n, v in zip(names, mean, strict=True) if not _finite(v)]
        where = "the batch is another process's, whose message names the images"
    raise FloatingPointError(
        f"Non-finite loss at iteration {iteration}: {', '.join(bad)}; {where}. The weights were "
        "not changed by this iteration. A learning rate meant for a larger batch is the usual "
        "cause (--auto-scale or --small-batch); else look at these images' annotations."
    )


def _finite(value: float) -> bool:
    return value - value == 0.0
