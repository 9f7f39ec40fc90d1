"""Evaluation in the course of training: save, measure, choose the best checkpoint, stop early."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase

from ..config.options import ConfigError
from ..data.loader import DataLoadingError
from ..utils.state import kept_rng_state
from .checkpoints import BEST, CheckpointFiles, CheckpointHook
from .ending import EvaluationStopped, OutputError
from .failures import on_any
from .swa import SWAHook

logger = logging.getLogger(f"detectron2.{__name__}")

Measure = Callable[[], Mapping[str, float]]


class EvaluationRound(HookBase):
    """Evaluates every ``period`` iterations and at the end of training.

    A checkpoint is written before anything is measured, so that an evaluation that fails costs no
    weights, and again afterwards, when the hooks in ``judges`` have changed their state. A measure
    that fails is reported, counted and left out; training goes on as if it had not been tried. At
    the end of training its problem becomes ``trainer.evaluation_problem``. A run that was ended
    during an evaluation makes up for it when it is resumed.

    It must come after the hooks that change weights or averages.

    Args:
        period: iterations; 0: only at the end.
        checkpoints: writes the checkpoints.
        measures: return metrics by name, the same on all processes; what one raises, all raise.
        judges: hooks with an ``on_evaluation()``, called when the metrics are in the event storage.
        average: its average is written and measured at the end.
    """

    def __init__(
        self,
        period: int,
        checkpoints: CheckpointHook,
        measures: Sequence[Measure],
        judges: Sequence[Any] = (),
        average: SWAHook | None = None,
    ) -> None:
        self._period = period
        self._checkpoints = checkpoints
        self._measures, self._judges, self._average = measures, judges, average
        self._evaluated = 0  # iterations done at the last evaluation
        self.failures = 0
        self.problem: str | None = None

    def before_train(self) -> None:
        trainer = self.trainer
        done = trainer.iterations_done
        if done < trainer.max_iter and self._due(done) and self._evaluated != done:
            logger.info("The run ended before its evaluation after iteration %d: now.", done - 1)
            trainer.storage.iter = done - 1
            self._evaluate()

    def after_step(self) -> None:
        done = self.trainer.iterations_done
        if done < self.trainer.max_iter and self._due(done) and not self.trainer.interrupted:
            self._checkpoints.save()
            self._evaluate()

    def after_train(self) -> None:
        trainer = self.trainer
        if not trainer.finished or not (self._measures or self._average):
            return
        self._checkpoints.save(final=True)
        if self._average is not None:
            self._average.write()
        if on_any(trainer.stop_requested):
            trainer.interrupt()
            return
        self.problem = None
        if trainer.iterations_done >= trainer.max_iter and self._measures:
            self._evaluate(last=True)
        if self._average is not None and not trainer.interrupted:
            self._attempt(self._average.measure)
        trainer.evaluation_problem = self.problem
        self._checkpoints.save(final=True)

    def _due(self, done: int) -> bool:
        return bool(self._measures) and self._period > 0 and done > 0 and done % self._period == 0

    def _evaluate(self, *, last: bool = False) -> None:
        for measure in self._measures:
            self._attempt(measure)
            if self.trainer.interrupted:
                return
        for judge in self._judges:
            judge.on_evaluation()
        self._evaluated = self.trainer.iterations_done
        if not last:
            self._checkpoints.save()

    def _attempt(self, measure: Measure) -> None:
        trainer = self.trainer
        try:
            with kept_rng_state():
                metrics = {name: float(value) for name, value in measure().items()}
        except EvaluationStopped:
            logger.warning("The evaluation was given up; --resume makes up for it.")
            trainer.interrupt()
        except OutputError:
            raise
        except Exception as error:
            self.failures += 1
            self.problem = described(error)
            logger.error(
                "Evaluation after iteration %d failed (%d so far): %s. The weights are saved.",
                *(trainer.iterations_done - 1, self.failures, self.problem),
            )
            trainer.storage.put_scalar("failed_evaluations", self.failures, smoothing_hint=False)
        else:
            trainer.storage.put_scalars(**metrics, smoothing_hint=False)
            last = trainer.record.get("metrics", {})
            same = last.get("iteration") == trainer.iterations_done - 1
            iteration = {"iteration": trainer.iterations_done - 1}
            trainer.record["metrics"] = {**(last if same else {}), **iteration, **metrics}

    def move(self, ratio: float) -> None:
        """Multiply numbers of iterations by ``ratio``, see ``Trainer.move_to``."""
        self._evaluated = round(self._evaluated * ratio)

    def state_dict(self) -> dict[str, Any]:
        return {"evaluated": self._evaluated, "failures": self.failures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._evaluated, self.failures = state["evaluated"], state["failures"]


class BestCheckpointHook(HookBase):
    """Writes ``model_best.pth`` whenever the metric is better than ever before in this run.

    :class:`EvaluationRound` tells it that an evaluation has been made.

    Args:
        files: of the run.
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
        """Compare the latest value of the metric with the best one."""
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
                "%s = %.4f, not better than %.4f of iteration %d",
                *(self.metric, value, math.nan if self.best is None else self.best),
                self.best_iteration,
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
        """Multiply numbers of iterations by ``ratio``; that of the file stays as written."""
        self._seen_iteration = round((self._seen_iteration + 1) * ratio) - 1


class EarlyStoppingHook(HookBase):
    """Ends training after ``patience`` evaluations in a row without a better metric.

    Args:
        best: counts the evaluations, over restarts as well; it must come before this hook.
        patience: evaluations.
    """

    def __init__(self, best: BestCheckpointHook, patience: int) -> None:
        self._best, self._patience = best, patience

    def before_train(self) -> None:
        self.on_evaluation()  # of a run that ended by early stopping and is resumed

    def on_evaluation(self) -> None:
        """End training where the best evaluation is ``patience`` evaluations ago."""
        if self._best.evaluations_since_best >= self._patience:
            reason = (
                f"{self._best.metric} has not improved in {self._best.evaluations_since_best} "
                f"evaluations; best: {self._best.best} at iteration {self._best.best_iteration}"
            )
            logger.info("Early stopping: %s", reason)
            self.trainer.end_training(reason)


def described(error: BaseException) -> str:
    """The error in one line; of unexpected kinds with the place that raised it."""
    text = " ".join(str(error).split())
    if isinstance(error, DataLoadingError | ConfigError):
        return text.removesuffix(".")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"
