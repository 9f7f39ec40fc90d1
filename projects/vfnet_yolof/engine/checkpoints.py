"""Checkpoint files of a run: written whole or not at all, found again by ``last_checkpoint``."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import CheckpointError, load_checkpoint
from ..checkpoint.tensors import check_contents
from ..config.options import ConfigError
from ..utils.files import leftovers, write_atomically
from .agreement import together
from .ending import writing

logger = logging.getLogger(f"detectron2.{__name__}")

BEST, FINAL = "model_best", "model_final"
AVERAGE, AVERAGE_PART = "model_swa", "model_swa_part_{:02d}"


class CheckpointFiles:
    """The checkpoints in a folder, named as Detectron2 names them.

    Args:
        folder: the run's output folder.
        writable: False on all processes but the main one, where :meth:`save` does nothing.
    """

    def __init__(self, folder: str | os.PathLike[str], *, writable: bool = True) -> None:
        self.folder = Path(folder)
        self.writable = writable

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pth"

    def save(
        self, name: str, content: dict[str, Any], *, tag: bool = True, alone: bool = False
    ) -> Path:
        """Write ``<name>.pth``; with ``tag`` it becomes what ``--resume`` continues from.

        Call it on all processes, all of which learn whether the main one could write; ``alone``
        on that one, where the others may be gone.

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
        """Content of a checkpoint of ours, on the CPU; no code of the file runs.

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
                f"To start from its weights: --init-from {path}, without --resume."
            )
        return content

    def delete(self, name: str) -> None:
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
        """Delete periodic checkpoints that a run was killed before it could delete.

        Args:
            known: names of those that stay.
            iterations_done: later ones stay, too: they are what somebody went back from.
        """
        for path in sorted(self.folder.glob("model_[0-9]*.pth")):
            number = path.stem.removeprefix("model_")
            if path.stem not in known and number.isdigit() and int(number) < iterations_done:
                self.delete(path.stem)
                logger.info("Removed %s, which a killed run had not come to", path.name)

    def _others(self) -> str:
        return ", ".join(sorted(p.name for p in self.folder.glob("*.pth"))) or "there is none"
