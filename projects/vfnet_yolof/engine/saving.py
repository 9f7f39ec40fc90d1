"""Which checkpoints of a run are written, and which of them stay."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.engine import HookBase

from .checkpoints import FINAL, CheckpointFiles

logger = logging.getLogger(f"detectron2.{__name__}")


class CheckpointHook(HookBase):
    """Writes ``model_<iteration>.pth`` every ``period`` and ``model_final.pth`` at the end.

    Other hooks and the trainer ask it for a checkpoint in between: before and after an evaluation,
    and when a run is stopped or fails. Such a one stays until the next is written.

    It must come after all hooks with a state.

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
        self.passing: str | None = None
        self._written: str | None = None  # the checkpoint of the present state

    def before_step(self) -> None:
        self._written = None

    def after_step(self) -> None:
        if self.trainer.iterations_done % self._period == 0 and self._written is None:
            self.save()

    def after_train(self) -> None:
        trainer = self.trainer
        if trainer.finished or trainer.iterations_done > trainer.start_iter:
            self.rescue()

    def rescue(self, *, alone: bool = False) -> None:
        """At the end, whichever it is: write the state that training is left in, unless it is."""
        if self._written is None:
            self.save(final=self.trainer.finished, alone=alone)

    def save(self, *, final: bool = False, alone: bool = False) -> None:
        """Write the present state; call on all processes, or ``alone`` on the main one.

        final: of a run that is at its end, as ``model_final.pth``.

        Raises:
            OutputError: it could not be written; checkpoints written before are as they were.
            FloatingPointError: as of ``Trainer.weights``.
        """
        before = self.recent, self.passing
        name = FINAL if final else f"model_{self.trainer.iterations_done - 1:07d}"
        surplus = self._make_room(name)
        try:
            self._files.save(name, self.trainer.checkpoint(alone=alone), alone=alone)
            self._written = name
        except Exception:
            self.recent, self.passing = before
            raise
        for old in surplus:
            self._files.delete(old)

    def _make_room(self, name: str) -> list[str]:
        """Enter the checkpoint of the present state; returns the names that need not stay."""
        surplus = [] if self.passing in (None, name) else [self.passing]
        self.passing = None
        if name == FINAL or name in self.recent:
            return surplus
        if self.trainer.iterations_done % self._period:
            self.passing = name
            return surplus
        keep = len(self.recent) if self._max_to_keep is None else self._max_to_keep - 1
        cut = max(len(self.recent) - keep, 0)
        surplus += self.recent[:cut]
        self.recent = [*self.recent[cut:], name]
        return surplus

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self.recent), "passing": self.passing}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recent, self.passing = list(state["recent"]), state.get("passing")
