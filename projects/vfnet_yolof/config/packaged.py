"""Finding and loading the configuration files that come with the package."""

import builtins
import difflib
import os
import threading
import traceback
import warnings
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from .yaml_files import Trust, load_lazy_yaml, top_keys

SUFFIXES = (".py", ".yaml")
# Files under the names that they had in earlier releases.
RENAMED = {"ablations/vfnet_t5_fl": "ablations/vfnet_t5_vfnet_fl.py"}

# LazyConfig replaces Python's import while a file runs; two threads would put back each other's.
# Files may load others.
_importing = threading.RLock()


def config_dir() -> Path:
    """The folder of configuration files: inside the installed package or of the checkout.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_configs", package.parents[1] / "configs"):
        if (folder / "common").is_dir():
            return folder
    raise FileNotFoundError(
        f"no configuration files beside {package}; install the package again with pip"
    )


def config_names() -> list[str]:
    """Names of all experiments, e.g. ``vfnet/vfnet_r50_fpn_1x.py``, sorted."""
    root = config_dir()
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix in SUFFIXES
        and path.name != "__init__.py"
        and path.relative_to(root).parts[0] != "common"
    )


def find_config(name: str | os.PathLike[str]) -> str:
    """Path of a configuration file.

    Args:
        name: a path; or a name relative to the packaged configs (with or without a leading
            ``configs/`` and the suffix), so that commands work from any folder. A name of an
            earlier release is understood, with a warning.

    Raises:
        FileNotFoundError: there is no such file; the message names the nearest ones.
    """
    text = os.fspath(name)
    if Path(text).is_file():
        return text
    relative = text.replace(os.sep, "/").removeprefix("./").removeprefix("configs/")
    for candidate in (relative, *(relative + suffix for suffix in SUFFIXES)):
        path = config_dir() / candidate
        if path.is_file():
            return str(path)
    if renamed := RENAMED.get(relative.removesuffix(".py")):
        warnings.warn(f"config {relative} is now {renamed}", FutureWarning, stacklevel=2)
        return str(config_dir() / renamed)
    near = difflib.get_close_matches(relative, config_names(), n=3, cutoff=0.3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise FileNotFoundError(f"config file {text!r} not found{hint}")


def is_yacs_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a yacs config, whose keys are in capitals; a saved LazyConfig is YAML, too.

    Raises:
        FileNotFoundError, ValueError: as of :func:`.yaml_files.top_keys`.
    """
    if Path(path).suffix not in (".yaml", ".yml"):
        return False
    return any(key.isupper() for key in top_keys(path))


def load_config(name: str | os.PathLike[str], trust: Trust | None = None) -> DictConfig:
    """Load a LazyConfig, a Python file or a saved YAML file, found by :func:`find_config`.

    Args:
        name: see :func:`find_config`.
        trust: what a YAML file may call; nothing unusual by default. A Python file is a program of
            the user's choice and is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is neither kind, cannot be read (see :mod:`.yaml_files`), or is a
            Python file that fails; the message names it.
    """
    path = find_config(name)
    suffix = Path(path).suffix
    if suffix in (".yaml", ".yml"):
        return load_lazy_yaml(path, trust or Trust())
    if suffix != ".py":
        raise ValueError(f"{path}: a configuration is a .py or a .yaml file")
    with _importing:
        importer = builtins.__import__
        try:
            return LazyConfig.load(path)
        except Exception as error:  # whatever a program may raise
            raise ValueError(f"{path}: {_place(error)}{type(error).__name__}: {error}") from error
        finally:
            builtins.__import__ = importer  # which LazyConfig leaves replaced when the file raises


def _place(error: Exception) -> str:
    """``FILE, line N: `` of the last line of a configuration that ``error`` passed through."""
    if isinstance(error, SyntaxError):
        return ""  # its text has the line
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.name == "<module>"]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
