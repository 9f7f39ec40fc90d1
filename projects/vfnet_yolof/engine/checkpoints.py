"""A run's checkpoints: files that are whole, when they are written, and which of them stay."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase

from ..checkpoint import CheckpointError, load_checkpoint
from ..checkpoint.tensors import check_contents
from ..config.options import ConfigError
from ..utils.files import leftovers, write_atomically
from .ending import writing
from .failures import together

logger = logging.getLogger(f"detectron2.{__name__}")

BEST, FINAL = "model_best", "model_final"
AVERAGE, AVERAGE_PART = "model_swa", "model_swa_part_{:02d}"


class CheckpointFiles:
    """The checkpoints in a folder, named as Detectron2 names them.

    Args:
        folder: the run's output folder.
        writable: True on the main process; on the others :meth:`save` writes nothing.
    """

    def __init__(self, folder: str | os.PathLike[str], *, writable: bool = True) -> None:
        self.folder = Path(folder)
        self.writable = writable

    def path(self, name: str) -> Path:
        """Where the checkpoint of that name is, or would be."""
        return self.folder / f"{name}.pth"

    def save(
        self, name: str, content: dict[str, Any], *, tag: bool = True, alone: bool = False
    ) -> Path:
        """Write ``<name>.pth``; call it on all processes.

        All of them learn whether the main one could write.

        Args:
            name: without its suffix.
            content: what the file is to hold.
            tag: make it the checkpoint that ``--resume`` continues from.
            alone: call it on the main process only; the others may have ended.

        Returns:
            The file's path.

        Raises:
            OutputError: it could not be written; earlier files are as they were.
        """
        path = self.path(name)
        if alone:
            self._write(path, content, tag)
        else:
            together(lambda: self._write(path, content, tag))
        return path

    def _write(self, path: Path, content: dict[str, Any], tag: bool) -> None:
        if not self.writable:
            return
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: torch.save(content, file))
            if tag:
                line = path.name.encode()
                write_atomically(self.folder / "last_checkpoint", lambda file: file.write(line))
        logger.info("Checkpoint written: %s", path)

    def last(self) -> Path | None:
        """What ``last_checkpoint`` names, or None where there is no such file.

        Raises:
            FileNotFoundError: the file that it names is gone.
        """
        tag = self.folder / "last_checkpoint"
        if not tag.is_file():
            return None
        name = tag.read_text(encoding="utf-8", errors="replace").strip()
        path = self.folder / name.replace("\0", "?")
        if not path.is_file():
            raise FileNotFoundError(
                f"{tag} names {name or 'nothing'}, which does not exist; write the name of another "
                f"checkpoint into it: {self._others()}"
            )
        return path

    def load(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Content of a checkpoint of this trainer, on the CPU; no code of the file runs.

        Raises:
            ConfigError: damaged, with values that are not finite, or not written by this trainer.
        """
        try:
            content = load_checkpoint(path)
            if "trainer" in content:
                check_contents(content)
        except CheckpointError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise ConfigError(
                f"Cannot read checkpoint {path}: {reason}. To continue from another one, write its "
                f"name into {self.folder / 'last_checkpoint'}: {self._others()}"
            ) from error
        if "trainer" not in content:
            raise ConfigError(
                f"{path} holds no training state, so training cannot be resumed from it. "
                f"To start from its weights: --weights {path}, without --resume."
            )
        return content

    def delete(self, name: str) -> None:
        """Delete a checkpoint, if there is one of that name."""
        if self.writable:
            self.path(name).unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Delete the unfinished files of a run that was killed while it wrote them."""
        if self.writable:
            found = [*leftovers(self.folder), *leftovers(self.folder / "inference")]
            for path in found:
                path.unlink(missing_ok=True)
            if found:
                names = ", ".join(sorted(path.name for path in found)[:5])
                logger.info("Removed %d unfinished files of a killed run: %s", len(found), names)

    def delete_orphans(self, known: Collection[str | None], iterations_done: int) -> None:
        """Delete periodic checkpoints that a killed run had no time to delete.

        Args:
            known: names of those that stay.
            iterations_done: later ones stay, too, for a user who went back to an earlier one.
        """
        for path in sorted(self.folder.glob("model_[0-9]*.pth")):
            number = path.stem.removeprefix("model_")
            if path.stem not in known and number.isdigit() and int(number) < iterations_done:
                self.delete(path.stem)
                logger.info("Removed %s, which a killed run had not come to", path.name)

    def _others(self) -> str:
        return ", ".join(sorted(p.name for p in self.folder.glob("*.pth"))) or "there is none"


class CheckpointHook(HookBase):
    """Writes ``model_<iteration>.pth`` every ``period`` and ``model_final.pth`` at the end.

    Other hooks and the trainer ask it for temporary checkpoints in between: before and after an
    evaluation, and when a run is stopped or fails. These stay until the next one is written.

    It must come after all hooks with a state.

    Args:
        files: of the run.
        period: iterations.
        max_to_keep: number of periodic checkpoints that stay, the newest; None keeps all.

    Attributes:
        recent: names of the periodic checkpoints that stay.
        temporary: name of the temporary checkpoint, if there is one.
    """

    def __init__(
        self, files: CheckpointFiles, *, period: int, max_to_keep: int | None = None
    ) -> None:
        self._files = files
        self._period = period
        self._max_to_keep = max_to_keep
        self.recent: list[str] = []
        self.temporary: str | None = None
        self._written: str | None = None  # the checkpoint of the present state

    def before_step(self) -> None:
        self._written = None

    def after_step(self) -> None:
        if self.trainer.iterations_done % self._period == 0 and self._written is None:
            self.save()

    def after_train(self) -> None:
        trainer = self.trainer
        if trainer.finished or trainer.iterations_done > trainer.start_iter:
            self.save_last()

    def save_last(self, *, alone: bool = False) -> None:
        """Write the state that training ends with, unless it is written; see :meth:`save`."""
        final = self.trainer.finished
        if self._written is None or (final and self._written != FINAL):
            self.save(final=final, alone=alone)

    def save(self, *, final: bool = False, alone: bool = False) -> None:
        """Write the present state; call it on all processes.

        Args:
            final: the run is at its end: write ``model_final.pth``.
            alone: call it on the main process only.

        Raises:
            OutputError: it could not be written; checkpoints written before are as they were.
            FloatingPointError: as of ``Trainer.weights``.
        """
        before = self.recent, self.temporary
        name = FINAL if final else f"model_{self.trainer.iterations_done - 1:07d}"
        surplus = self._make_room(name)
        try:
            self._files.save(name, self.trainer.checkpoint(alone=alone), alone=alone)
            self._written = name
        except Exception:
            self.recent, self.temporary = before
            raise
        for old in surplus:
            self._files.delete(old)

    def _make_room(self, name: str) -> list[str]:
        """Record the name of the next checkpoint; returns the names of those to delete."""
        surplus = [] if self.temporary in (None, name) else [self.temporary]
        self.temporary = None
        if name == FINAL or name in self.recent:
            return surplus
        if self.trainer.iterations_done % self._period:
            self.temporary = name
            return surplus
        keep = len(self.recent) if self._max_to_keep is None else self._max_to_keep - 1
        cut = max(len(self.recent) - keep, 0)
        surplus += self.recent[:cut]
        self.recent = [*self.recent[cut:], name]
        return surplus

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self.recent), "passing": self.temporary}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recent, self.temporary = list(state["recent"]), state.get("passing")
