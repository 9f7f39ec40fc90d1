"""What is measured on validation images while a detector is trained."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any

import torch
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ..config.options import ConfigError
from ..modeling.losses import each_worker_alone
from ..utils.state import rng_state, set_rng_state
from .agreement import agree, is_agreed
from .ending import EvaluationStopped

logger = logging.getLogger(f"detectron2.{__name__}")

Stop = Callable[[], bool]  # whether this process has been asked to stop


def never() -> bool:
    return False


class _Guarded(DatasetEvaluator):
    """An evaluator whose results are worked out only where all processes have come so far."""

    def __init__(self, evaluator: DatasetEvaluator, stop: Stop) -> None:
        self._evaluator, self._stop = evaluator, stop

    def reset(self) -> None:
        self._evaluator.reset()

    def process(self, inputs: Any, outputs: Any) -> None:
        self._evaluator.process(inputs, outputs)
        if self._stop():
            raise EvaluationStopped("the run was asked to stop")

    def evaluate(self) -> Any:
        agree(None)
        return self._evaluator.evaluate()


def evaluate_on(
    model: nn.Module, loader: Any, evaluator: Any, *, stop: Stop = never
) -> dict[str, Any]:
    """Results of the evaluator on every process; the model's modes are as before afterwards.

    Call it on all processes. What fails on one of them is raised on all.

    Raises:
        EvaluationStopped: ``stop()`` was true on some process.
        Exception: whatever the loader, the model or the evaluator raises.
    """
    if isinstance(evaluator, MutableSequence):
        evaluator = DatasetEvaluators(evaluator)
    results: dict[str, Any] = {}
    with kept_modes(model):
        try:
            results = inference_on_dataset(model, loader, _Guarded(evaluator, stop))
            if comm.is_main_process() and results:
                print_csv_format(results)
        except Exception as error:
            if comm.get_world_size() > 1 and is_agreed(error):
                raise
            agree(error)  # the others are at the next agreement, here or in _Guarded
        agree(None)
    # Only the main process has them; the others decide by them, too.
    return comm.all_gather(results)[0] or {}


@contextlib.contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """All modules train or evaluate as before on leaving, also by an error."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class ValidationLoss:
    """The mean losses on validation images as ``val_loss/<name>``, and their sum.

    The model runs in training mode, where it returns losses, but without gradients, with its norm
    layers in evaluation mode, and with the random state put back afterwards: training goes on as
    if nothing had happened.

    Args:
        model: returns the model to use, e.g. the averaged one.
        loader: batches with annotations, this process's share of them.
        amp_dtype: autocast as in training; None for float32.
        stop: asked after each batch.
    """

    def __init__(
        self,
        model: Callable[[], nn.Module],
        loader: Iterable[list[dict[str, Any]]],
        amp_dtype: torch.dtype | None = None,
        *,
        stop: Stop = never,
    ) -> None:
        self._model, self._loader, self._amp_dtype = model, loader, amp_dtype
        self._stop = stop

    def __call__(self) -> dict[str, float]:
        losses = self.compute()
        total = sum(losses.values())
        logger.info("Validation loss: %.4f", total)
        return {**{f"val_loss/{k}": v for k, v in losses.items()}, "val_loss/total_loss": total}

    def compute(self) -> dict[str, float]:
        """Mean of each loss over all images of all processes, all of which call this.

        Raises:
            ConfigError: there are no images.
            Exception: as of :func:`evaluate_on`.
        """
        state, error = rng_state(), None
        sums: tuple[dict[str, float], int] = {}, 0
        try:
            sums = self._sums(self._model())
        except Exception as caught:
            error = caught
        finally:
            set_rng_state(state)
        agree(error)
        shares = comm.all_gather(sums)
        images = sum(count for _, count in shares)
        if images == 0:
            raise ConfigError("train.val_loss.enabled: the validation set has no images.")
        names = sorted(set().union(*(losses for losses, _ in shares)))
        return {name: sum(x.get(name, 0.0) for x, _ in shares) / images for name in names}

    @torch.no_grad()
    def _sums(self, model: nn.Module) -> tuple[dict[str, float], int]:
        """Of the losses over this process's images, and the number of these."""
        sums: dict[str, Tensor] = {}
        count = 0
        device = next(model.parameters()).device.type
        with (
            losses_without_side_effects(model),
            each_worker_alone(),  # shares of the images differ in length
            torch.autocast(device, dtype=self._amp_dtype, enabled=self._amp_dtype is not None),
            EventStorage(),  # what the model logs is not about training images
        ):
            for batch in self._loader:
                for name, value in model(batch).items():
                    sums[name] = sums.get(name, 0.0) + value.detach().double() * len(batch)
                count += len(batch)
                if self._stop():
                    raise EvaluationStopped("the run was asked to stop")
        return {name: float(value) for name, value in sums.items()}, count


@contextlib.contextmanager
def losses_without_side_effects(model: nn.Module) -> Iterator[None]:
    """Training mode but for norm layers; all modes as before on leaving."""
    with kept_modes(model):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.eval()
        yield
