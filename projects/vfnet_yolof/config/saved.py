"""Configurations inside of checkpoints, and whether a checkpoint is used as it was trained.

A checkpoint of this project carries its configuration as the text of a YAML file, which is read
under the same rules as such a file (:mod:`.yaml_files`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..checkpoint import load_record
from .options import ConfigError
from .yaml_files import Trust, load_lazy_yaml, load_to_compare

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".pkl", ".safetensors", ".ckpt", ".tar")
ENTRY = "config"  # of a checkpoint
# What a model must be given at test time as it was in training, or its numbers mean little.
_TESTED_AS = {
    "dataloader.test.mapper.augmentations": "size of test images",
    "dataloader.test.mapper.interpolation": "interpolation",
    "dataloader.test.mapper.image_format": "channel order",
    "model.pixel_mean": "pixel mean",
    "model.pixel_std": "pixel standard deviation",
}
_DEFAULTS = {"dataloader.test.mapper.interpolation": "pil"}


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether that is called like a checkpoint and not like a configuration."""
    return Path(path).suffix in CHECKPOINT_SUFFIXES


def config_text(cfg: DictConfig) -> str:
    """A configuration as the YAML that :func:`.packaged.load_config` reads.

    Raises:
        ConfigError: it holds something that has no name, which text cannot stand for, or lacks a
            value.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        # LazyConfig pickles what it cannot write as text, without an error.
        try:
            LazyConfig.save(cfg, str(path))
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"The config cannot be saved as text: {reason}") from error
        if Path(f"{path}.pkl").exists():
            raise ConfigError(
                "The config cannot be saved as text, so the run could not be repeated: it holds a "
                "lambda or a local function. Use a function of a module instead."
            )
        return path.read_text(encoding="utf-8")


def load_saved_config(path: str | os.PathLike[str], trust: Trust) -> DictConfig:
    """The configuration that a checkpoint carries.

    Raises:
        ConfigError: it has none, as those of other projects and of earlier releases.
        FileNotFoundError, ValueError: no such checkpoint, it cannot be read, or its configuration
            names what :class:`.yaml_files.Trust` does not allow.
    """
    text = load_record(path).get(ENTRY)
    if not isinstance(text, str):
        run = Path(path).parent
        of = str(run) if (run / "config.yaml").is_file() else "CONFIG"
        raise ConfigError(
            f"{path} is a checkpoint without its configuration, of another project or of an "
            "earlier release. Name the configuration or the run, and this file as its weights: "
            f"vfnet-yolof COMMAND {of} --weights {path}"
        )
    return load_lazy_yaml(path, trust, text)


def tested_as(cfg: DictConfig) -> dict[str, Any]:
    """What images look like to the model at test time, by key; without what ``cfg`` lacks."""
    found = {}
    for key in _TESTED_AS:
        try:
            value = OmegaConf.select(cfg, key)
        except OmegaConfBaseException:
            continue
        value = _DEFAULTS.get(key) if value is None else value
        if value is not None:
            found[key] = plain(value)
    return found


def plain(value: Any) -> Any:
    """Settings as lists and dictionaries, with classes and functions by the names that files have.

    References are replaced by what they refer to; two configurations that build the same give the
    same.
    """
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _convert_target_to_string(value) if callable(value) else value


def require_tested_alike(
    here: Mapping[str, Any],
    source: str,
    record: Mapping[str, Any],
    checkpoint: str | os.PathLike[str],
) -> None:
    """Refuse to use a checkpoint on other images than its own configuration makes.

    Args:
        here: :func:`tested_as` of the configuration that is used, without what was typed.
        source: where that comes from.
        record: of the checkpoint; one without a configuration is not compared.
        checkpoint: its file.

    Raises:
        ConfigError: naming what differs, and both ways out.
    """
    text = record.get(ENTRY)
    if not isinstance(text, str):
        return
    there = tested_as(OmegaConf.create(load_to_compare(checkpoint, text)))
    differing = [key for key in here if key in there and here[key] != there[key]]
    if differing:
        said = "; ".join(
            f"{_TESTED_AS[key]} {_short(here[key])}, in the checkpoint {_short(there[key])}"
            for key in differing
        )
        raise ConfigError(
            f"{source} tests otherwise than {checkpoint} was trained for: {said}. Name the "
            "checkpoint alone, which brings its own configuration, or add --other-test-settings "
            "to use the named one as it is."
        )


def _short(value: Any) -> str:
    """Augmentations as their names and arguments, numbers as they are."""
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict) and "_target_" in value:
        given = [f"{key}={item}" for key, item in value.items() if key != "_target_"]
        return f"{value['_target_'].rpartition('.')[2]}({', '.join(given)})"
    return str(value)
