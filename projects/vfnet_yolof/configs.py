"""Finding and loading the configuration files that come with the package."""

import difflib
import os
from pathlib import Path

import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig

SUFFIXES = (".py", ".yaml")


def config_dir() -> Path:
    """The folder of configuration files: inside the installed package or of the checkout.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
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
            ``configs/`` and the suffix), so that commands work from any folder.

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
    near = difflib.get_close_matches(relative, config_names(), n=3, cutoff=0.3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise FileNotFoundError(f"config file {text!r} not found{hint}")


def is_yacs_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a yacs config, whose keys are in capitals; a saved LazyConfig is YAML, too.

    Raises:
        ValueError: it is no YAML.
    """
    if Path(path).suffix not in (".yaml", ".yml"):
        return False
    with open(path, encoding="utf-8") as stream:
        try:
            # Tags of Python objects are of no interest here, only the keys at the top.
            node = yaml.compose(stream, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not valid YAML: {error}") from error
    keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    return any(key.isupper() for key in keys)


def load_config(name: str | os.PathLike[str]) -> DictConfig:
    """Load a LazyConfig ``.py`` file found by :func:`find_config`."""
    return LazyConfig.load(find_config(name))
