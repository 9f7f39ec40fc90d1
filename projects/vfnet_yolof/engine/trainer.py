"""The training loop, and all state that a resumed run needs to continue it exactly."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from ..config.options import ConfigError
from ..data.loader import DataLoadingError
from ..utils.state import StepState, rng_state, set_rng_state
from .checkpoints import CheckpointHook
from .ending import OutputError
from .failures import ProcessFailed, agreed_batches, has_lost_a_process, is_agreed
from .step import TrainStep

logger = logging.getLogger(f"detectron2.{__name__}")

H = TypeVar("H", bound=HookBase)

_INTERRUPTED = "interrupted"


class Trainer(TrainerBase):
    """Runs hooks around :class:`TrainStep`; Detectron2's hooks work with it.

    Args:
        step: holds model and optimizer.
        data_loader: iterable of batches. If it has ``set_start_iteration(k)``, a resumed run sees
            the batches that the first one would have seen.

    Attributes:
        record: plain values that every checkpoint holds, such as class names.
        stop_reason: why training ends itself, or None.
        stop_requested: whether this process was asked to stop.
        evaluation_problem: of the evaluation at the end of training, if it failed.
    """

    def __init__(
        self,
        step: TrainStep,
        data_loader: Iterable[list[dict[str, Any]]],
    ) -> None:
        super().__init__()
        self.step = step
        self.data_loader = data_loader
        self.record: dict[str, Any] = {}
        self.stop_reason: str | None = None
        self.stop_requested = False
        self.evaluation_problem: str | None = None
        self._batches: Iterator[list[dict[str, Any]]]
        self._last_done = -1
        self._pending_rng: list[dict[str, Any]] | None = None
        self._step_state: StepState  # before the last step
        self._in_step = False
        self._averaging = False  # a hook is changing its average

    @property
    def model(self) -> nn.Module:
        """The model, inside of DistributedDataParallel when there are several processes."""
        return self.step.model

    @property
    def bare_model(self) -> nn.Module:
        """The model without its distributed wrapper."""
        return self.step.bare_model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Detectron2's hooks ask for it."""
        return self.step.optimizer

    @property
    def iterations_done(self) -> int:
        """Of the whole run, those before it was resumed included."""
        return self._last_done + 1

    @property
    def finished(self) -> bool:
        """Whether no iteration is left, or training ended itself; False after signals."""
        return self.iterations_done >= self.max_iter or (
            self.stop_reason is not None and not self.interrupted
        )

    @property
    def interrupted(self) -> bool:
        """Whether all processes have agreed to stop, to be continued."""
        return self.stop_reason == _INTERRUPTED

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run iterations [start_iter, max_iter), or fewer if :meth:`end_training` is called.

        Hooks' ``after_train`` runs after a normal end and after a signal. After an error the state
        before the failed step is saved, unless weights were being changed, and only the
        ``after_train`` of log writers runs.

        Raises:
            ProcessFailed: another process of the run has ended.
            Exception: what a step or a hook raises.
        """
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        self._last_done = start_iter - 1
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # schedulers want it when they start late
        with EventStorage(start_iter) as self.storage:
            try:
                self._loop()
                self.after_train()
            except Exception as error:
                self._fail(error)
                if has_lost_a_process(error):
                    raise ProcessFailed(
                        "Another process of this run has ended; its own message tells why."
                    ) from error
                raise
            finally:
                # An error's traceback would keep workers alive until Python kills them at exit.
                getattr(self.data_loader, "close", lambda: None)()

    def _loop(self) -> None:
        self.model.train()
        self._restore_rng()
        self.before_train()
        if self.start_iter >= self.max_iter or self.stop_reason is not None:
            return
        if hasattr(self.data_loader, "set_start_iteration"):
            self.data_loader.set_start_iteration(self.start_iter)
        elif self.start_iter:
            logger.warning("The data loader cannot start at an iteration: batches will repeat.")
        self._batches = agreed_batches(iter(self.data_loader))
        self._restore_rng()  # after everything else that draws while starting
        self._pending_rng = None
        self._step_state = StepState(self.bare_model)
        for iteration in range(self.start_iter, self.max_iter):
            self.iter = iteration
            self.before_step()
            self.run_step()
            self.after_step()
            if self.stop_reason is not None:
                break
        self.iter = self.iterations_done

    def _restore_rng(self) -> None:
        if self._pending_rng is not None:
            set_rng_state(self._pending_rng[comm.get_rank()])

    def after_step(self) -> None:
        """As Detectron2's; remembers while an average is being changed."""
        for hook in self._hooks:
            self._averaging = hasattr(hook, "checkpoint_entries")
            hook.after_step()
        self._averaging = False

    def _fail(self, error: Exception) -> None:
        """Say what went wrong, save what is sound, and close the logs."""
        # Of a broken image or a NaN the message says all; of others the place matters.
        told = isinstance(error, DataLoadingError | FloatingPointError | OutputError)
        told = told or has_lost_a_process(error) or is_agreed(error)
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        logger.error("Training failed at iteration %d: %s", self.iter, reason, exc_info=not told)
        try:
            self._save_what_is_sound(alone=comm.get_world_size() > 1 and not is_agreed(error))
        except Exception as second:
            logger.error("The state before the error was not saved: %s", second)
        for writer in self.hooks_of(hooks.PeriodicWriter):
            with contextlib.suppress(OutputError):  # the first error is the one to tell
                writer.after_train()

    def _save_what_is_sound(self, *, alone: bool) -> None:
        """Save the state after the last whole iteration, if there is one.

        Args:
            alone: exchange nothing with the other processes: they may have ended or be waiting.
        """
        if self.iterations_done <= self.start_iter or (alone and not comm.is_main_process()):
            return
        if self.step.updating or self._averaging:
            logger.error("The weights were being changed when it happened: they are not saved.")
            return
        if self._in_step:
            self._step_state.put_back()
        for hook in self.hooks_of(CheckpointHook):
            hook.save_last(alone=alone)
            logger.info("The state after iteration %d is saved.", self._last_done)

    def interrupt(self) -> None:
        """Stop, to be continued; call it on all processes."""
        self.stop_requested = True
        self.end_training(_INTERRUPTED)

    def end_training(self, reason: str) -> None:
        """Stop after the present iteration; call it on all processes."""
        self.stop_reason = reason

    def run_step(self) -> None:
        """Train on one batch and log its losses."""
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        self._step_state.keep()
        self._in_step = True
        losses, stop = self.step(batch, self.iter, stop=self.stop_requested)
        self._in_step, self._last_done = False, self.iter
        self.storage.put_scalars(
            data_time=data_time, total_loss=sum(losses.values()), **dict(losses)
        )
        # Asked during the step: one process can stop now, several agree in the next step.
        if stop or (self.stop_requested and comm.get_world_size() == 1):
            self.interrupt()

    def hooks_of(self, kind: type[H]) -> list[H]:
        """The registered hooks of a class, in their order."""
        return [hook for hook in self._hooks if isinstance(hook, kind)]

    def register_hooks(self, hook_list: list[HookBase | None]) -> None:
        """As Detectron2's, but refuses two hooks of one class that have a state to save."""
        super().register_hooks(hook_list)
        names = [type(h).__qualname__ for h in self._hooks if h.state_dict()]
        if len(names) != len(set(names)):
            raise ValueError(f"Several hooks of a class that has a state: {sorted(names)}")

    def state_dict(self, *, alone: bool = False) -> dict[str, Any]:
        """All that the next iteration depends on, but the weights; call it on all processes.

        Args:
            alone: call it on this process only; the others' random states are left out.
        """
        state = super().state_dict()
        state["iteration"] = self._last_done
        state["optimizer"] = self.optimizer.state_dict()
        state["schedule"] = self._schedule()
        state["rng"] = [rng_state()] if alone else comm.all_gather(rng_state())
        if self.step.grad_scaler is not None:
            state["grad_scaler"] = self.step.grad_scaler.state_dict()
        return state

    def _schedule(self) -> dict[str, Any]:
        groups = self.optimizer.param_groups
        return {
            "max_iter": self.max_iter,
            "learning_rates": [float(g.get("initial_lr", g["lr"])) for g in groups],
            "total_batch_size": int(getattr(self.data_loader, "total_batch_size", 0)),
            "world_size": comm.get_world_size(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Learning rate, momentum, weight decay and length of the run stay those of the present
        config; differences are logged.

        Raises:
            ConfigError: the optimizer's state is for other parameters.
        """
        super().load_state_dict(state_dict)
        self._last_done = self.iter
        own = self.optimizer.state_dict()["param_groups"]
        saved = state_dict["optimizer"]["param_groups"]
        if [len(g["params"]) for g in own] != [len(g["params"]) for g in saved]:
            raise ConfigError(
                "The optimizer of the checkpoint has other parameter groups than this config's. "
                "Resume with the config of the first run, or start from the weights: --weights."
            )
        self.optimizer.load_state_dict(
            {"state": state_dict["optimizer"]["state"], "param_groups": own}
        )
        if self.step.grad_scaler is not None and "grad_scaler" in state_dict:
            self.step.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        if len(state_dict["rng"]) == comm.get_world_size():
            self._pending_rng = state_dict["rng"]
        else:
            logger.warning(
                "Resumed on %d processes with the random numbers of %d: the run will not be "
                "bit-identical.",
                comm.get_world_size(),
                len(state_dict["rng"]),
            )

    def move_to(self, iterations_done: int) -> None:
        """Go on as if that many iterations had been done, which is so with another batch size."""
        before = self.iterations_done
        if iterations_done == before:
            return
        self.iter = self._last_done = iterations_done - 1
        for hook in self._hooks:
            if hasattr(hook, "move"):
                hook.move(iterations_done / before)

    def report_schedule_changes(self, saved: dict[str, Any]) -> None:
        """Log which values of the schedule differ from the checkpoint's."""
        for name, value in self._schedule().items():
            if name in saved and saved[name] != value:
                logger.warning(
                    "Resumed with another schedule, which is used from now on: "
                    "%s: %s in the checkpoint, %s now",
                    *(name, saved[name], value),
                )

    def weights(self) -> dict[str, Any]:
        """Content of a file with the weights and the record of the run.

        Raises:
            FloatingPointError: a weight is not finite; such a file would be of no use.
        """
        model = self.bare_model
        finite = torch.stack([p.isfinite().all() for p in model.parameters()]).all()
        if not finite:
            raise FloatingPointError(
                f"A weight became infinite or NaN by iteration {self._last_done}, so no checkpoint "
                "was written; the one before is sound. Lower the learning rate or clip gradients."
            )
        return {"model": model.state_dict(), "iteration": self._last_done, **self.record}

    def checkpoint(self, *, alone: bool = False) -> dict[str, Any]:
        """Content of a checkpoint file that training can go on from; call it on all processes.

        Args:
            alone: see :meth:`state_dict`.

        Raises:
            FloatingPointError: as of :meth:`weights`.
        """
        content = {**self.weights(), "trainer": self.state_dict(alone=alone)}
        for hook in self._hooks:
            if hasattr(hook, "checkpoint_entries"):
                content.update(hook.checkpoint_entries())
        return content
