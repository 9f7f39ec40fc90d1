"""One training step: forward, backward, check, clip, update."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..checkpoint.rules import shorten_list
from ..config.options import ConfigError
from ..modeling.losses.normalizer import fixed_normalizers
from .failures import file_name, names_images
from .memory import batch_normalizers, split_batch

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class GradientClipping:
    """Clips gradients.

    Attributes:
        max_norm: largest allowed norm (or, for kind "value", element).
        norm_type: 2 for the Euclidean norm, inf for the largest element.
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
    """What a step tells the training loop."""

    losses: dict[str, float]  # averaged over the processes
    stop: bool  # some process was asked to stop


class _HostCopy:
    """Scalars copied to the host, which does not wait for work that is queued after them."""

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
        """The values, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()


class TrainStep:
    """Updates ``model`` with a batch at each call.

    Losses and gradients are checked before any weight changes. On a GPU one number stands for all
    gradients; it is copied to the host together with the losses, behind the backward pass, and
    waiting for it is the only time that the host waits in a step.

    Gradients that overflow in float16 are normal: the gradient scaler leaves out such a step and
    lowers its scale. Only where the scale is at 1 and they still do are they an error.

    Gradient accumulation, with ``accumulate`` k, computes a batch in k parts, one after the other,
    in the memory of one part. The losses are those of the whole batch: their normalizers
    (positives, sums of weights) are summed over the parts first, in a forward pass without
    gradients. That pass costs about a third of a step. Batch norms in training mode take the
    statistics of each part by itself.

    Args:
        model: batch -> dict of weighted scalar losses; may be wrapped for distributed training.
        optimizer: over its parameters.
        device: where the model is.
        amp_dtype: None for float32, or "float16" / "bfloat16". Gradients are scaled for float16
            only; bfloat16 has the range of float32.
        clip: gradient clipping, on unscaled gradients.
        accumulate: parts of a batch for gradient accumulation; 1: none.

    Attributes:
        updating: weights or the optimizer's state are being changed; after an error meanwhile they
            are neither those before the step nor those after it.

    Raises:
        ConfigError: float16 on a CPU; ``accumulate`` less than 1.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device | str = "cpu",
        amp_dtype: str | None = None,
        clip: GradientClipping | None = None,
        accumulate: int = 1,
    ) -> None:
        if accumulate < 1:
            raise ConfigError(f"train.accumulate={accumulate}: must be at least 1.")
        self.accumulate = accumulate
        self.updating = False
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

    @names_images
    def __call__(
        self, batch: Sequence[Mapping[str, Any]], iteration: int, *, stop: bool = False
    ) -> StepResult:
        """Update the weights once.

        Args:
            batch: this process's images, as the data loader gives them.
            iteration: its number, for messages.
            stop: whether this process was asked to stop. All processes learn of it with the losses
                of this iteration.

        Raises:
            FloatingPointError: a loss or a gradient is infinite or NaN; names it, the iteration
                and the images. The weights are as they were before the call.
            StepFailed: the model or the optimizer raised an exception; see
                :func:`.failures.names_images`.
        """
        parts = split_batch(batch, self.accumulate)
        normalizers = None
        if len(parts) > 1:
            normalizers = batch_normalizers(self.bare_model, parts, self._autocast())
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, start=1):
            with self._gradients_exchanged(number == len(parts)):
                names, stacked = self._losses(part, normalizers)
                total = total + stacked.detach()
                if number == len(parts):
                    shared = _local_and_mean(total, stop)
                self._backward(stacked.sum())
        values = _HostCopy(torch.cat([shared, self._largest_gradient()])).wait()
        result = _checked(names, values[:-1], batch, iteration)
        if not _finite(values[-1]) and not self._is_overflow():
            raise FloatingPointError(self._describe_gradients(batch, iteration))
        self._update()
        return result

    @property
    def bare_model(self) -> nn.Module:
        """The model without its distributed wrapper."""
        model = self.model
        return model.module if isinstance(model, DistributedDataParallel) else model

    def _gradients(self) -> dict[nn.Parameter, Tensor]:
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        return {p: p.grad for p in params if p.grad is not None}

    def _largest_gradient(self) -> Tensor:
        """(1,): the largest magnitude in all gradients; infinite or NaN if one of them is."""
        gradients = [x for x in self._gradients().values() if x.numel()]
        if not gradients:
            return torch.zeros(1, device=self.device)
        # The maximum, unlike a sum of squares, overflows only where a gradient did.
        norms = torch._foreach_norm(gradients, float("inf"))
        return torch.stack([norm.float() for norm in norms]).amax()[None]

    def _is_overflow(self) -> bool:
        """Whether gradients are not finite because the losses were scaled for float16."""
        return self.grad_scaler is not None and self.grad_scaler.get_scale() > 1.0

    def _describe_gradients(self, batch: Sequence[Mapping[str, Any]], iteration: int) -> str:
        bad = []
        for name, param in self.bare_model.named_parameters():
            if param.grad is not None and (count := int((~param.grad.isfinite()).sum())):
                bad.append(f"{name} ({count} of {param.numel()} values)")
        # After the exchange all processes have the same gradients, so all of them are here.
        files = [name for names in comm.all_gather([*map(file_name, batch)]) for name in names]
        return (
            f"Non-finite gradients at iteration {iteration}, from finite losses, of {len(bad)} "
            f"parameters: {shorten_list(bad)}; images of the batch: {', '.join(files)}. The "
            "weights were not changed by this iteration. In losses or layers of your own, look "
            "for a square root, logarithm or division at 0; else at these images' annotations."
        )

    def _autocast(self) -> torch.autocast:
        enabled = self.amp_dtype is not None
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=enabled)

    def _losses(
        self, part: Sequence[Mapping[str, Any]], normalizers: Sequence[Tensor] | None
    ) -> tuple[list[str], Tensor]:
        """Names, in the same order on every process, and values."""
        whole = contextlib.nullcontext() if normalizers is None else fixed_normalizers(normalizers)
        with self._autocast(), whole, self._narrow_maps_refused():
            losses = self.model(part)
        names = sorted(losses)
        return names, torch.stack([losses[name].float() for name in names])

    @contextlib.contextmanager
    def _narrow_maps_refused(self) -> Iterator[None]:
        if self.amp_dtype is not torch.bfloat16 or self.device.type != "cpu":
            yield
            return
        hook = nn.modules.module.register_module_forward_pre_hook(_refuse_narrow_map)
        try:
            yield
        finally:
            hook.remove()

    @contextlib.contextmanager
    def _gradients_exchanged(self, exchange: bool) -> Iterator[None]:
        """Average gradients over the processes in the backward pass of the last part only."""
        if exchange or not isinstance(self.model, DistributedDataParallel):
            yield
        else:
            with self.model.no_sync():
                yield

    def _backward(self, loss: Tensor) -> None:
        if self.grad_scaler is not None:
            loss = self.grad_scaler.scale(loss)
        loss.backward()

    def _update(self) -> None:
        scaler = self.grad_scaler
        if self.clip is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            self.clip([*self._gradients()])
        self.updating = True
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self.updating = False


def _refuse_narrow_map(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Before a module's forward pass in bfloat16 on a CPU.

    PyTorch 2.14 then gives wrong, mostly finite, weight gradients of convolutions with a horizontal
    stride on maps that are one cell wide.

    Raises:
        ValueError: the module is such a convolution, the map so narrow.
    """
    if not isinstance(module, nn.Conv2d) or not module.weight.requires_grad:
        return
    if module.stride[1] > 1 and module.kernel_size[1] > 1 and inputs[0].shape[-1] == 1:
        raise ValueError(
            "in bfloat16 on a CPU PyTorch gives wrong gradients of a strided convolution on a map "
            "one cell wide: give wider images, or set train.amp.enabled=False"
        )


def _local_and_mean(losses: Tensor, stop: bool) -> Tensor:
    """(2 * n + 1,): n losses of this process, their means over all, and the share of stops."""
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
        where = "images of the batch: " + ", ".join(map(file_name, batch))
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
