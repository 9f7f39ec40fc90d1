"""Finding and loading the configuration files that come with the package.

A configuration of one's own, wherever it lies, takes from them what it does not change::

    from vfnet_yolof.config.packaged import import_from

    dataloader, lr_multiplier, model, optimizer, train = import_from(
        "vfnet/vfnet_small.py", "dataloader", "lr_multiplier", "model", "optimizer", "train"
    )
    train.output_dir = "output/mine"
"""

import builtins
import difflib
import os
import re
import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from .saved import is_checkpoint, load_saved_config
from .yaml_files import Trust, load_lazy_yaml, top_keys

SUFFIXES = (".py", ".yaml")
# Files under the names that they had in earlier releases.
RENAMED = {"vfnet_t5_fl": "ablations/vfnet_t5_vfnet_fl.py"}

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
            ``configs/``, the folder and the suffix), so that commands work from any folder. A name
            of an earlier release is understood, with a warning.

    Raises:
        FileNotFoundError: there is no such file; the message names the nearest ones.
    """
    text = os.fspath(name)
    if Path(text).is_file():
        return text
    relative = text.replace(os.sep, "/").removeprefix("./").removeprefix("configs/")
    candidates = (relative, *(relative + suffix for suffix in SUFFIXES))
    for candidate in candidates:
        path = config_dir() / candidate
        if path.is_file():
            return str(path)
    for candidate in candidates:
        found = [known for known in config_names() if known.rpartition("/")[2] == candidate]
        if len(found) == 1:
            return str(config_dir() / found[0])
    if renamed := RENAMED.get(relative.rpartition("/")[2].removesuffix(".py")):
        warnings.warn(f"config {relative} is now {renamed}", FutureWarning, stacklevel=2)
        return str(config_dir() / renamed)
    near = difflib.get_close_matches(relative, config_names(), n=3, cutoff=0.3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise FileNotFoundError(f"config file {text!r} not found{hint}")


def is_packaged(path: str | os.PathLike[str]) -> bool:
    """Whether that file is one of the configurations that come with the package."""
    return config_dir().resolve() in Path(path).resolve().parents


def is_yacs_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a yacs config, whose keys are in capitals; a saved LazyConfig is YAML, too.

    Raises:
        FileNotFoundError, ValueError: as of :func:`.yaml_files.top_keys`.
    """
    if Path(path).suffix not in (".yaml", ".yml"):
        return False
    return any(key.isupper() for key in top_keys(path))


def load_config(name: str | os.PathLike[str], trust: Trust | None = None) -> DictConfig:
    """Load a LazyConfig, found by :func:`find_config`: Python, saved YAML, or of a checkpoint.

    Args:
        name: see :func:`find_config`.
        trust: what a YAML file may call; nothing unusual by default. A Python file is a program of
            the user's choice and is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such kind, cannot be read (see :mod:`.yaml_files`), is a Python
            file that fails, or a checkpoint without configuration; the message names it.
    """
    path = find_config(name)
    if is_checkpoint(path):
        return load_saved_config(path, trust or Trust())
    suffix = Path(path).suffix
    if suffix in (".yaml", ".yml"):
        return load_lazy_yaml(path, trust or Trust())
    return _run_file(path)


def import_from(name: str | os.PathLike[str], *names: str) -> Any:
    """What ``from name import names`` would give if the configurations were one package.

    For configurations that lie anywhere, where relative imports do not reach the packaged ones.
    Each call runs the file anew, so that changing the result changes it for nobody else.

    Args:
        name: a Python file, found by :func:`find_config`; also one of ``common/``.
        names: at least one, of dictionaries or functions.

    Returns:
        what the name stands for; for several names a tuple in their order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no name is given, the file fails, or it does not define one of the names.
    """
    if not names:
        raise ValueError(f"import_from({os.fspath(name)!r}): name what is to be imported")
    found = _run_file(find_config(name), names)
    return found[0] if len(names) == 1 else found


def _run_file(path: str, names: Sequence[str] | None = None) -> Any:
    """All that LazyConfig takes of a Python file for configuration, or the named parts of it."""
    if Path(path).suffix != ".py":
        raise ValueError(f"{path}: a configuration is a .py or a .yaml file, or in a checkpoint")
    with _importing:
        importer = builtins.__import__
        try:
            return LazyConfig.load(path, names)
        except Exception as error:  # whatever a program may raise
            if isinstance(error, KeyError) and error.args[:1] and error.args[0] in (names or ()):
                raise ValueError(f"{path} does not define {error.args[0]}") from error
            raise ValueError(
                f"{path}: {_place(error)}{type(error).__name__}: {error}{_how_to_import(error)}"
            ) from error
        finally:
            builtins.__import__ = importer  # which LazyConfig leaves replaced when the file raises


_MISSING_FILE = re.compile(r"Cannot import name (\S+) from ")  # of a relative import, by LazyConfig


def _how_to_import(error: Exception) -> str:
    """For a relative import that leads nowhere: how packaged configurations are imported."""
    missing = _MISSING_FILE.match(str(error)) if isinstance(error, ImportError) else None
    if missing is None:
        return ""
    file = missing[1].strip(".").replace(".", "/") + ".py"
    known = file if (config_dir() / file).is_file() else "vfnet/vfnet_small.py"
    return (
        " A relative import reaches files beside its own only. Of a packaged config: from "
        "vfnet_yolof.config.packaged import import_from; "
        f"model = import_from({known!r}, 'model')"
    )


def _place(error: Exception) -> str:
    """``FILE, line N: `` of the last line of a configuration that ``error`` passed through."""
    if isinstance(error, SyntaxError):
        return ""  # its text has the line
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.name == "<module>"]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
