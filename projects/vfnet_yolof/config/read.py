"""From the name of a configuration to what is run: load, own data, overrides, checks, scaling.

There is this one way, :func:`read`, for training, evaluation, prediction and tools. It goes from
top to bottom: nothing that is called later loads or changes a configuration again.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from detectron2.config import CfgNode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..data.datasets import count_images
from .options import ConfigError, complete_train_options
from .overrides import apply_overrides
from .own_data import FILES, use_own_data
from .packaged import find_config, is_packaged, is_yacs_file, load_config
from .parts import config_errors
from .saved import tested_as
from .schedule import (
    YACS_KEYS,
    auto_scale,
    fit_to_data,
    small_batch,
    warn_about_batch_size,
)
from .yacs import COUNTERPARTS, apply_yacs_overrides, components, load_yacs, test_components
from .yaml_files import Trust

logger = logging.getLogger(f"detectron2.{__name__}")

ConfigSource: TypeAlias = str | os.PathLike[str] | DictConfig | CfgNode

_SECTIONS = ("model", "optimizer", "lr_multiplier", "dataloader")


@dataclass(frozen=True)
class RunFlags:
    """What a command that trains or evaluates says beside ``key=value``.

    Attributes:
        data, split: own data, and the share for validation, see :func:`.layouts.open_data`.
        train_json, train_images, val_json, val_images: own data in COCO's format.
        seed: ``train.seed``; None leaves the config's.
        output_dir: ``train.output_dir``, taken letter by letter; None leaves the config's.
        cpu: train on the CPU, whatever ``train.device`` says.
        auto_scale, small_batch: fit the recipe to its batch size, see :mod:`.schedule`.
        epochs: length of the run, see :func:`.schedule.fit_to_data`. batch: images per iteration.
        eval_only: nothing is trained.
    """

    data: str | None = None
    split: float | None = None
    train_json: str | None = None
    train_images: str | None = None
    val_json: str | None = None
    val_images: str | None = None
    seed: int | None = None
    output_dir: str | None = None
    cpu: bool = False
    auto_scale: bool = False
    small_batch: bool = False
    epochs: float | None = None
    batch: int | None = None
    eval_only: bool = False

    @property
    def names_data(self) -> bool:
        """Whether own data are named, and not only those that the config remembers."""
        return any((self.data, self.train_json, self.train_images))


@dataclass(frozen=True)
class ReadConfig:
    """A configuration as it is used.

    Attributes:
        cfg: a LazyConfig, also where a yacs file was read.
        changes: what was changed in it, one line ``key: old -> new`` each.
        source: the file, or words for a given object, for messages.
        tested_as: see :func:`.saved.tested_as`, before any of the changes that were typed.
    """

    cfg: DictConfig
    changes: list[str]
    source: str
    tested_as: dict[str, Any]


def read(
    config: ConfigSource,
    overrides: Sequence[str] = (),
    flags: RunFlags | None = None,
    trust: Trust | None = None,
) -> ReadConfig:
    """Read a configuration and change it as asked for.

    Order: the file, own data, other flags, ``key=value`` overrides, and at last the scaling to the
    batch size.

    Args:
        config: a file (``.py``, saved ``.yaml``, or a yacs ``.yaml``; packaged ones by name); or a
            loaded LazyConfig or ``CfgNode``, which is not changed.
        overrides: ``key=value``; ``KEY VALUE`` pairs of yacs configs, too.
        flags: of a run. It must be a whole config then, and gets every option of ``train``; else
            the parts that are used may be all that it has.
        trust: what a YAML file may name, see :class:`.yaml_files.Trust`.

    Raises:
        ConfigError, FileNotFoundError: naming the file or key and what to do.
        TypeError: ``config`` is something else.
    """
    pairs = joined_pairs(overrides)
    yacs = [pair for pair in pairs if pair[:1].isupper()]
    cfg, source = _loaded(config, yacs, trust, whole=flags is not None)
    tested = {} if yacs else tested_as(cfg)
    changes = [pair.replace("=", ": -> ", 1) for pair in yacs]
    lazy = [pair for pair in pairs if pair not in yacs]
    _check_said_once(yacs, lazy)
    if flags is None:
        with config_errors(source):
            changes += apply_overrides(cfg, lazy)
        return ReadConfig(cfg, changes, source, tested)
    complete_train_options(cfg)
    own = {"path": flags.data, "split": flags.split}
    own |= {key: getattr(flags, key) for key in FILES}
    changes += use_own_data(cfg, own, eval_only=flags.eval_only)
    if flags.batch is not None:
        lazy = [f"dataloader.train.total_batch_size={flags.batch}", *lazy]
    if flags.seed is not None:
        lazy = [f"train.seed={flags.seed}", *lazy]
    changes += apply_overrides(cfg, lazy)
    if flags.output_dir is not None:
        changes.append(f"train.output_dir: {cfg.train.output_dir} -> {flags.output_dir}")
        cfg.train.output_dir = _plain_path(flags.output_dir)
    complete_train_options(cfg)
    check_interpolations(cfg)
    given = [pair.partition("=")[0] for pair in pairs]
    changes += _scale(cfg, flags, source, {YACS_KEYS.get(key, key) for key in given})
    if flags.cpu:
        cfg.train.device = "cpu"
    return ReadConfig(cfg, changes, source, tested)


def _check_said_once(yacs: Sequence[str], lazy: Sequence[str]) -> None:
    """Raises :class:`ConfigError` where a setting is given by its yacs key and by its own."""
    own = {pair.partition("=")[0] for pair in lazy}
    for key in (pair.partition("=")[0] for pair in yacs):
        same = COUNTERPARTS.get(key) or YACS_KEYS.get(key)
        if same in own:
            raise ConfigError(f"{key} and {same} are the same setting: give one of them.")


def _loaded(
    config: ConfigSource, overrides: Sequence[str], trust: Trust | None, *, whole: bool
) -> tuple[DictConfig, str]:
    """The LazyConfig, and where it comes from. overrides: of yacs keys. whole: for a run."""
    source = "the given configuration"
    if isinstance(config, str | os.PathLike):
        source = find_config(config)
        try:
            is_yacs = is_yacs_file(source)
            config = load_yacs(source, trust=trust) if is_yacs else load_config(source, trust)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from error
    else:
        config = copy.deepcopy(config)
    if isinstance(config, CfgNode):
        apply_yacs_overrides(config, overrides)
        return components(config) if whole else test_components(config, source), source
    if not isinstance(config, DictConfig):
        raise TypeError(
            f"config must be a file, a LazyConfig or a CfgNode, not {type(config).__name__}"
        )
    if overrides:
        raise ConfigError(
            f"{source} is no yacs config, so it has no key {overrides[0].partition('=')[0]}."
        )
    missing = [name for name in _SECTIONS if name not in config] if whole else []
    if missing:
        raise ConfigError(f"{source} does not define {', '.join(missing)}; is it a whole config?")
    return config, source


def check_interpolations(cfg: DictConfig) -> None:
    """Resolve every ``${...}`` of a config once, so that one without an aim is found at the start.

    Raises:
        ConfigError: naming the key and what it refers to.
    """
    pending: list[tuple[str, Any]] = [("", cfg)]
    while pending:
        prefix, node = pending.pop()
        names = range(len(node)) if isinstance(node, ListConfig) else list(node)
        for name in names:
            child = node._get_node(name)
            key = f"{prefix}{name}"
            if child is not None and child._is_interpolation():
                try:
                    node[name]
                except OmegaConfBaseException as error:
                    reason = str(error).splitlines()[0]
                    raise ConfigError(
                        f"{key} is {child._value()!r}, which cannot be resolved: {reason}"
                    ) from error
            elif OmegaConf.is_config(child) and not child._is_none():
                pending.append((f"{key}.", child))


def _plain_path(path: str) -> str:
    """A path for a config, where ``${`` would begin a reference."""
    if not path:
        raise ConfigError("--output is empty: name a folder, or leave the option out.")
    if "${" in path:
        raise ConfigError(f"--output {path}: a folder's name must not contain '${{'.")
    return path


def joined_pairs(overrides: Sequence[str]) -> list[str]:
    """``KEY VALUE`` pairs, as Detectron2's yacs tools take them, in the form ``KEY=VALUE``."""
    joined: list[str] = []
    waiting: str | None = None
    for text in overrides:
        if waiting is not None:
            joined.append(f"{waiting}={text}")
            waiting = None
        elif "=" not in text and text[:1].isupper():
            waiting = text
        else:
            joined.append(text)
    if waiting is not None:
        raise ConfigError(f"Override {waiting!r} has no value.")
    return joined


def _scale(cfg: DictConfig, flags: RunFlags, source: str, explicit: Collection[str]) -> list[str]:
    """Fit the recipe to the batch size and to own data, or warn where only the first is needed.

    source: of the config; the schedule of the user's own files is not changed unless asked for.
    explicit: keys that the command line gives a value, which is left as it is.
    """
    total_batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    if total_batch is None or flags.eval_only:
        return []
    fits = flags.epochs is not None or (flags.names_data and is_packaged(source))
    if flags.epochs is not None and "train.max_iter" in explicit:
        raise ConfigError("--epochs and train.max_iter both say how long to train: give one.")
    small = fits and 2 * total_batch <= cfg.train.reference_batch_size and not flags.auto_scale
    if flags.small_batch or small:
        changes = small_batch(cfg, total_batch, explicit=explicit)
    elif flags.auto_scale or cfg.train.auto_scale or fits:
        changes = auto_scale(cfg, total_batch, explicit=explicit)
    else:
        warn_about_batch_size(cfg, total_batch)
        changes = []
    if not fits:
        return changes
    names = OmegaConf.select(cfg, "dataloader.train.dataset.names")
    if names is None:
        raise ConfigError("--epochs needs dataloader.train.dataset.names, to count its images.")
    images = count_images(names)
    fitted = fit_to_data(cfg, images, total_batch, flags.epochs, explicit)
    replaced = {line.partition(":")[0] for line in fitted}
    return [line for line in changes if line.partition(":")[0] not in replaced] + fitted
