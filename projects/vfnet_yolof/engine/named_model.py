"""MODEL, as all commands and the predictor take it: which configuration, and which weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import load_record
from ..config.options import ConfigError
from ..config.packaged import SUFFIXES, find_config
from ..config.saved import ENTRY, is_checkpoint
from ..runtime import is_exported
from .fine_tune import best_or_last

_CONFIGS = (*SUFFIXES, ".yml")


class NamedModel(NamedTuple):
    """What a name stands for.

    Attributes:
        config: path of a file, which may be a checkpoint or an exported detector.
        run: its folder, where there is one.
        checkpoint: the file itself, where that was named.
    """

    config: str
    run: str | None = None
    checkpoint: str | None = None

    def weights(self, given: str | None = None) -> str | None:
        """The file to use: the one given, else the one named, else the run's best or last.

        Raises:
            ConfigError: the run has none.
        """
        if given or self.checkpoint or self.run is None:
            return given or self.checkpoint
        found = best_or_last(self.run)
        if not found:
            raise ConfigError(f"{self.run} has no checkpoint yet; name one with --weights FILE.")
        return found


def named_model(name: str | os.PathLike[str]) -> NamedModel:
    """What a name stands for.

    Args:
        name: a packaged config's name, a config's path, a run's folder, an exported detector,
            or a checkpoint of this project, which carries its config; one without takes that of
            the run it lies in.

    Raises:
        ConfigError: a file that is no configuration, or a folder that holds no run.
        CheckpointError: a checkpoint that cannot be read.
        FileNotFoundError: there is nothing of that name; the nearest packaged configs are named.
    """
    path = Path(name)
    if path.is_dir():
        config = path / "config.yaml"
        if not config.is_file():
            raise ConfigError(f"{path} is no run's folder: it has no config.yaml.")
        return NamedModel(str(config), str(path))
    if is_exported(path):
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        return NamedModel(str(path))
    if is_checkpoint(path):
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        run = str(path.parent) if (path.parent / "config.yaml").is_file() else None
        carried = run is None or ENTRY in load_record(path)
        return NamedModel(str(path) if carried else f"{run}/config.yaml", run, str(path))
    if path.is_file() and path.suffix not in _CONFIGS:
        raise ConfigError(
            f"{path} is neither a config (.py, .yaml), nor a run's folder, nor a checkpoint: MODEL "
            "must be one of these, or a packaged config's name."
        )
    return NamedModel(find_config(name))
