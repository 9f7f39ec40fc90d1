"""Hooks beside Detectron2's: averaged weights, best checkpoint, early stopping, validation loss."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..modeling.losses import each_worker_alone
from .checkpoints import BEST, FINAL, CheckpointFiles
from .options import ConfigError
from .state import rng_state, set_rng_state

logger = logging.getLogger(f"detectron2.{__name__}")


class AveragingHook(HookBase):
    """Keeps averaged weights and float buffers beside the model.

    Args:
        model: the one that is trained, without a distributed wrapper.

    Attributes:
        entry: name of the average in checkpoint files.
        updates: how many weights it is made of.
    """

    entry: str

    def __init__(self, model: nn.Module) -> None:
        self.updates = 0
        self._source = model
        self._averaged = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)
        self._averaged.requires_grad_(False)

    def _average(self, averages: list[Tensor], current: list[Tensor], count: Any) -> None:
        """Change tensors of one type, the average of ``count``, by the ``current`` ones."""
        raise NotImplementedError(f"{type(self).__name__} defines no average")

    @property
    def module(self) -> nn.Module:
        """The model with the averaged weights."""
        return self._averaged.module

    def update(self) -> None:
        """Let the present weights take part in the average."""
        self._averaged.update_parameters(self._source)
        self.updates += 1

    def checkpoint_entries(self) -> dict[str, Any]:
        return {self.entry: self.module.state_dict()} if self.updates else {}

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the average in a checkpoint of a run, if it has one."""
        if self.entry in checkpoint:
            self.module.load_state_dict(checkpoint[self.entry])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self._averaged.n_averaged.fill_(self.updates)


class EMAHook(AveragingHook):
    """Exponential moving average.

    Args:
        model: see :class:`AveragingHook`.
        decay: share of the old average at each iteration.
        warmup: use min(decay, (1 + n) / (10 + n)) after n updates, so that the average leaves the
            first, random weights behind.
    """

    entry = "ema"

    def __init__(self, model: nn.Module, *, decay: float, warmup: bool = True) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"train.ema.decay={decay}: must be in [0, 1).")
        super().__init__(model)
        self.decay, self.warmup = decay, warmup

    def _average(self, averages: list[Tensor], current: list[Tensor], count: Any) -> None:
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(decay)(averages, current, count)

    def after_step(self) -> None:
        self.update()

    def restore(self, checkpoint: dict[str, Any]) -> None:
        super().restore(checkpoint)
        if self.entry not in checkpoint:
            logger.warning("The checkpoint has no averaged weights: averaging starts now.")


class EvaluationHook(EvalHook):
    """Detectron2's hook, but training that was interrupted just before its end is not evaluated."""

    def after_train(self) -> None:
        if self.trainer.iterations_done >= self.trainer.max_iter:
            super().after_train()


class _AfterEvaluation(HookBase):
    """Calls ``on_evaluation`` whenever ``EvalHook`` with the same period has run before it."""

    def __init__(self, eval_period: int) -> None:
        self._period = eval_period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        # EvalHook leaves the last iteration to after_train.
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self.on_evaluation()

    def after_train(self) -> None:
        if self.trainer.iterations_done >= self.trainer.max_iter:
            self.on_evaluation()

    def on_evaluation(self) -> None:
        raise NotImplementedError


class BestCheckpointHook(_AfterEvaluation):
    """Writes ``model_best.pth`` whenever the metric is better than ever before in this run.

    Args:
        files: where to.
        eval_period: of the ``EvalHook`` registered before this hook.
        metric: name in the event storage, e.g. ``"bbox/AP"`` or ``"val_loss/total_loss"``.
        mode: ``"max"`` or ``"min"``.
    """

    def __init__(
        self, files: CheckpointFiles, eval_period: int, *, metric: str, mode: str = "max"
    ) -> None:
        super().__init__(eval_period)
        if mode not in ("max", "min"):
            raise ConfigError(f"train.best_checkpoint.mode={mode!r}: 'max' or 'min'.")
        self._files = files
        self.metric, self.mode = metric, mode
        self.best: float | None = None
        self.best_iteration = -1
        self.evaluations_since_best = 0
        self._seen_iteration = -1

    def on_evaluation(self) -> None:
        latest = self.trainer.storage.latest()
        if self.metric not in latest:
            logger.warning(
                "train.best_checkpoint.metric=%s was not computed; there are: %s",
                self.metric,
                ", ".join(sorted(k for k in latest if "/" in k)) or "no metrics",
            )
            return
        value = float(latest[self.metric][0])
        iteration = self.trainer.iterations_done - 1
        if iteration == self._seen_iteration:  # a finished run that is resumed evaluates again
            return
        self._seen_iteration = iteration
        if not math.isfinite(value) or not self._better(value):
            self.evaluations_since_best += 1
            logger.info(
                "%s = %.4f, not better than %s of iteration %d",
                *(self.metric, value, self.best, self.best_iteration),
            )
            return
        logger.info("%s = %.4f is the best so far", self.metric, value)
        self.best, self.best_iteration = value, iteration
        self.evaluations_since_best = 0
        # Not tagged: --resume continues from the last checkpoint, whichever is the best.
        self._files.save(BEST, self.trainer.checkpoint(), tag=False)

    def _better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value > self.best if self.mode == "max" else value < self.best

    def state_dict(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "mode": self.mode,
            "best": self.best,
            "best_iteration": self.best_iteration,
            "evaluations_since_best": self.evaluations_since_best,
            "seen_iteration": self._seen_iteration,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (state["metric"], state["mode"]) != (self.metric, self.mode):
            logger.warning(
                "The best checkpoint is now chosen by %s (%s), before by %s (%s): starting afresh.",
                *(self.metric, self.mode, state["metric"], state["mode"]),
            )
            return
        self.best, self.best_iteration = state["best"], state["best_iteration"]
        self.evaluations_since_best = state["evaluations_since_best"]
        self._seen_iteration = state["seen_iteration"]

    def move(self, ratio: float) -> None:
        """Iterations count ``ratio`` times what they did; that of the file stays as written."""
        self._seen_iteration = round((self._seen_iteration + 1) * ratio) - 1


class EarlyStoppingHook(_AfterEvaluation):
    """Ends training after ``patience`` evaluations in a row without a better metric.

    It counts by the ``best`` hook, which must come before it and keeps the count over restarts.
    """

    def __init__(self, best: BestCheckpointHook, eval_period: int, patience: int) -> None:
        super().__init__(eval_period)
        if eval_period <= 0:
            raise ConfigError("train.early_stopping.patience needs train.eval_period > 0.")
        self._best, self._patience = best, patience

    def before_train(self) -> None:
        self.on_evaluation()  # a run that had ended this way and is resumed

    def on_evaluation(self) -> None:
        if self._best.evaluations_since_best >= self._patience:
            reason = (
                f"{self._best.metric} has not improved in {self._best.evaluations_since_best} "
                f"evaluations; best: {self._best.best} at iteration {self._best.best_iteration}"
            )
            logger.info("Early stopping: %s", reason)
            self.trainer.end_training(reason)


class ValidationLossHook(_AfterEvaluation):
    """Logs the mean losses on validation images as ``val_loss/<name>`` and their sum.

    The model runs in training mode, where it returns losses, but without gradients, with its norm
    layers in evaluation mode, and with the random state put back afterwards: training goes on as
    if nothing had happened.

    Args:
        eval_period: iterations.
        model: returns the model to use, e.g. the averaged one.
        loader: returns batches with annotations, this process's share of them.
        amp_dtype: autocast as in training; None for float32.
    """

    def __init__(
        self,
        eval_period: int,
        model: Callable[[], nn.Module],
        loader: Callable[[], Iterable[list[dict[str, Any]]]],
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(eval_period)
        self._model, self._loader, self._amp_dtype = model, loader, amp_dtype

    def on_evaluation(self) -> None:
        losses = self.compute()
        total = sum(losses.values())
        self.trainer.storage.put_scalars(
            **{f"val_loss/{name}": value for name, value in losses.items()},
            **{"val_loss/total_loss": total},
            smoothing_hint=False,
        )
        logger.info("Validation loss: %.4f", total)

    @torch.no_grad()
    def compute(self) -> dict[str, float]:
        """Mean of each loss over all images of all processes."""
        model, state = self._model(), rng_state()
        sums: dict[str, Tensor] = {}
        count = 0
        device = next(model.parameters()).device.type
        with (
            losses_without_side_effects(model),
            each_worker_alone(),  # shares of the images differ in length
            torch.autocast(device, dtype=self._amp_dtype, enabled=self._amp_dtype is not None),
            EventStorage(),  # what the model logs is not about training images
        ):
            for batch in self._loader():
                for name, value in model(batch).items():
                    sums[name] = sums.get(name, 0.0) + value.detach().double() * len(batch)
                count += len(batch)
        set_rng_state(state)
        shares = comm.all_gather(({name: float(s) for name, s in sums.items()}, count))
        images = sum(n for _, n in shares)
        if images == 0:
            raise ConfigError("train.val_loss.enabled: the validation set has no images.")
        names = sorted(set().union(*(s for s, _ in shares)))
        return {name: sum(s.get(name, 0.0) for s, _ in shares) / images for name in names}


@contextlib.contextmanager
def losses_without_side_effects(model: nn.Module) -> Iterator[None]:
    """Training mode but for norm layers; all modes as before on leaving."""
    modes = {module: module.training for module in model.modules()}
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class CheckpointHook(HookBase):
    """Writes ``model_<iteration>.pth`` every ``period`` and ``model_final.pth`` at the end.

    It must come after all hooks with a state, which are saved as they are after the last
    evaluation. Interrupted training is saved under its iteration.

    Args:
        max_to_keep: of the periodic ones, the newest; None keeps all.
    """

    def __init__(
        self, files: CheckpointFiles, *, period: int, max_to_keep: int | None = None
    ) -> None:
        self._files = files
        self._period = period
        self._max_to_keep = max_to_keep
        self.recent: list[str] = []

    def after_step(self) -> None:
        if self.trainer.iterations_done % self._period == 0:
            self._save_periodic()

    def after_train(self) -> None:
        trainer = self.trainer
        if trainer.finished:
            self._files.save(FINAL, trainer.checkpoint())
        elif trainer.iterations_done > trainer.start_iter:
            self._save_periodic()

    def _save_periodic(self) -> None:
        name = f"model_{self.trainer.iterations_done - 1:07d}"
        old = [x for x in self.recent if x != name]
        keep = len(old) if self._max_to_keep is None else self._max_to_keep - 1
        surplus = max(len(old) - keep, 0)
        self.recent = [*old[surplus:], name]
        self._files.save(name, self.trainer.checkpoint())
        for one in old[:surplus]:
            self._files.delete(one)

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self.recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recent = list(state["recent"])
