"""From the command line to the config that is run: load, override, check, scale."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .options import ConfigError, complete_train_options
from .overrides import apply_overrides
from .packaged import find_config, is_yacs_file, load_config
from .schedule import YACS_KEYS, auto_scale, small_batch, warn_about_batch_size
from .yaml_files import Trust, trust_from

logger = logging.getLogger(f"detectron2.{__name__}")

_SECTIONS = ("model", "optimizer", "lr_multiplier", "dataloader")


def prepare(args: argparse.Namespace) -> tuple[DictConfig, list[str]]:
    """The config to run, and what was changed in it as lines ``key: old -> new``.

    Order: the file, data sets from the command line, other flags, ``key=value`` overrides, and
    at last the scaling to the batch size.

    Raises:
        ConfigError, FileNotFoundError: naming the file or key and what to do.
    """
    path = find_config(args.config_file)
    overrides = joined_pairs(args.overrides)
    if _is_yacs(path):
        from .yacs import components, load_yacs

        upper = [o for o in overrides if o[:1].isupper()]
        cfg = components(load_yacs(path, upper, trust_from(args)))
        overrides = [o for o in overrides if o not in upper]
        changes = [f"{o.replace('=', ': -> ', 1)}" for o in upper]
    else:
        cfg, changes = load_lazy(path, trust_from(args)), []
    complete_train_options(cfg)
    changes += use_user_data(cfg, args)
    if args.seed is not None:
        overrides = [f"train.seed={args.seed}", *overrides]
    changes += apply_overrides(cfg, overrides)
    if args.output_dir is not None:
        changes.append(f"train.output_dir: {cfg.train.output_dir} -> {args.output_dir}")
        cfg.train.output_dir = _plain_path(args.output_dir)
    complete_train_options(cfg)
    check_interpolations(cfg)
    given = [text.partition("=")[0] for text in joined_pairs(args.overrides)]
    changes += scale(cfg, args, {YACS_KEYS.get(key, key) for key in given})
    if args.num_gpus == 0:
        cfg.train.device = "cpu"
    return cfg, changes


def _is_yacs(path: str) -> bool:
    try:
        return is_yacs_file(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def load_lazy(path: str, trust: Trust | None = None) -> DictConfig:
    """Load a LazyConfig and check that it has all sections.

    Args:
        path: a ``.py`` or saved ``.yaml`` file.
        trust: what a YAML file may call, see :class:`vfnet_yolof.config.yaml_files.Trust`.

    Raises:
        ConfigError: it cannot be read, or a section is missing.
    """
    try:
        cfg = load_config(path, trust)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    missing = [name for name in _SECTIONS if name not in cfg]
    if missing:
        raise ConfigError(f"{path} does not define {', '.join(missing)}; is it a whole config?")
    return cfg


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
        raise ConfigError("--output-dir is empty: name a folder, or leave the option out.")
    if "${" in path:
        raise ConfigError(f"--output-dir {path}: a folder's name must not contain '${{'.")
    return path


def joined_pairs(overrides: list[str]) -> list[str]:
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


def use_user_data(cfg: DictConfig, args: argparse.Namespace) -> list[str]:
    """Register the data sets of ``--train-json`` and so on and put them into the config."""
    flags = (args.train_json, args.train_images, args.val_json, args.val_images)
    if not any(flags):
        return []
    from vfnet_yolof.data import register_user_datasets, validate_coco

    if args.eval_only and not any(flags[2:]):
        raise ConfigError("--eval-only evaluates on --val-json and --val-images; give both.")
    try:
        user = register_user_datasets(*flags)
        if comm.is_main_process():  # the others end with it
            for json_file, images in (flags[:2], flags[2:]):
                if json_file is not None:
                    report = validate_coco(json_file, images)
                    logger.info("%s", report.format())
                    report.raise_if_errors()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    changes = []
    for split, name in (("train", user.train_name), ("test", user.val_name)):
        if name is not None:
            key = f"dataloader.{split}.dataset.names"
            changes.append(f"{key}: {OmegaConf.select(cfg, key)} -> {name}")
            OmegaConf.update(cfg, key, name)
    key = "dataloader.train.dataset.filter_empty"
    if user.train_name is not None and OmegaConf.select(cfg, key):
        # COCO's recipes leave these out; of one's own pictures they are meant as negatives.
        changes.append(f"{key}: True -> False (images without boxes are negatives)")
        OmegaConf.update(cfg, key, False)
    if user.val_name is None:
        # The config's test set has other classes, or is not there.
        for name in ("test", "evaluator", "tta"):
            cfg.dataloader.pop(name, None)
        logger.warning("Without --val-json and --val-images nothing is evaluated.")
        changes.append("dataloader.test, dataloader.evaluator: removed")
    changes.append(f"model.num_classes: {cfg.model.get('num_classes')} -> {user.num_classes}")
    cfg.model.num_classes = user.num_classes
    return changes


def scale(cfg: DictConfig, args: argparse.Namespace, explicit: Collection[str]) -> list[str]:
    """Apply ``--small-batch`` or ``--auto-scale``, or warn where neither is on but needed.

    explicit: keys that the command line gives a value, which is left as it is.
    """
    total_batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    if total_batch is None or args.eval_only:
        return []
    if args.small_batch:
        changes = small_batch(cfg, total_batch, explicit=explicit)
    elif args.auto_scale or cfg.train.auto_scale:
        changes = auto_scale(cfg, total_batch, explicit=explicit)
    else:
        warn_about_batch_size(cfg, total_batch)
        changes = []
    return changes
