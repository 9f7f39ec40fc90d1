"""MODEL, the first argument of the commands: which configuration, and which weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..config.options import ConfigError
from ..config.packaged import SUFFIXES, find_config
from ..engine.fine_tune import best_or_last

_CONFIGS = (*SUFFIXES, ".yml")
_CHECKPOINTS = (".pth", ".pt", ".pkl", ".safetensors", ".ckpt", ".tar")


class Model(NamedTuple):
    """config: path of a file. run: its folder, where MODEL is a run."""

    config: str
    run: str | None = None

    def weights(self, given: str | None) -> str | None:
        """The file to use: the one given, else the run's best or last checkpoint.

        Raises:
            ConfigError: the run has none.
        """
        if given or self.run is None:
            return given
        found = best_or_last(self.run)
        if not found:
            raise ConfigError(f"{self.run} has no checkpoint yet; name one with --weights FILE.")
        return found


def resolve(name: str, command: str) -> Model:
    """What MODEL stands for.

    Args:
        name: a packaged config's name, a config's path or a run's folder.
        command: whose argument it is, for the answer to a checkpoint.

    Raises:
        ConfigError: a file that is no configuration, or a folder that holds no run.
        FileNotFoundError: there is nothing of that name; the nearest packaged configs are named.
    """
    path = Path(name)
    if path.is_dir():
        config = path / "config.yaml"
        if not config.is_file():
            raise ConfigError(f"{path} is no run's folder: it has no config.yaml.")
        return Model(str(config), str(path))
    if path.suffix in _CHECKPOINTS:
        raise _bare_checkpoint(path, command)
    if path.is_file() and path.suffix not in _CONFIGS:
        raise ConfigError(
            f"{path} is neither a config (.py, .yaml) nor a run's folder: MODEL must be one of "
            "these, or a packaged config's name."
        )
    return Model(find_config(name))


def _bare_checkpoint(path: Path, command: str) -> ConfigError | FileNotFoundError:
    """A checkpoint does not say which model it is of."""
    if not path.is_file():
        return FileNotFoundError(f"There is no file {path}.")
    of = str(path.parent) if (path.parent / "config.yaml").is_file() else "CONFIG"
    return ConfigError(
        f"{path} is a checkpoint, which does not say by itself what model it is of. Name the "
        f"config or the run as well: vfnet-yolof {command} {of} --weights {path}"
    )
