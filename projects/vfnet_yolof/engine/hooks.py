"""Hooks beside Detectron2's: averaged weights, best checkpoint, early stopping."""

from __future__ import annotations

import logging
import math
from typing import Any

from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..checkpoint.fitting import load_whole
from ..config.options import ConfigError
from .checkpoints import BEST, CheckpointFiles

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
            load_whole(self.module, checkpoint[self.entry])

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


class BestCheckpointHook(HookBase):
    """Writes ``model_best.pth`` whenever the metric is better than ever before in this run.

    It judges when :class:`.rounds.EvaluationRound` says that an evaluation has been made.

    Args:
        files: where to.
        metric: name in the event storage, e.g. ``"bbox/AP"`` or ``"val_loss/total_loss"``.
        mode: ``"max"`` or ``"min"``.
    """

    def __init__(self, files: CheckpointFiles, *, metric: str, mode: str = "max") -> None:
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
        value, measured = latest[self.metric]
        if measured != self.trainer.storage.iter:
            return  # this evaluation failed; the value is an earlier one's
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


class EarlyStoppingHook(HookBase):
    """Ends training after ``patience`` evaluations in a row without a better metric.

    It counts by the ``best`` hook, which must judge before it and keeps the count over restarts.
    """

    def __init__(self, best: BestCheckpointHook, patience: int) -> None:
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
