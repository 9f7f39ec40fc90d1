"""Own data: named on the command line, remembered in the configuration, put into the loaders."""

from __future__ import annotations

import logging
import os
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from .options import ConfigError

logger = logging.getLogger(f"detectron2.{__name__}")

FILES = ("train_json", "train_images", "val_json", "val_images")


def use_own_data(cfg: DictConfig, given: dict[str, Any], *, eval_only: bool) -> list[str]:
    """Register own data sets and put them into a whole config.

    What was given is remembered as ``train.data``, so that a run's config, or a checkpoint, is
    enough to resume and to evaluate.

    Args:
        cfg: changed in place.
        given: values of the options ``path``, ``split`` and :data:`FILES`; without any of them, the
            data that the config remembers.
        eval_only: the training data are of no interest.

    Returns:
        one line ``key: old -> new`` for each change.

    Raises:
        ConfigError: the data are not there or cannot be used, or are named twice.
    """
    given = {key: value for key, value in given.items() if value}
    remembered = not given
    if remembered:
        given = {key: value for key, value in cfg.train.data.items() if value}
    if not given:
        return []
    try:
        paths = _paths(given, eval_only, remembered)
        if eval_only:
            paths = {key: path for key, path in paths.items() if key.startswith("val")}
        user = _registered(paths)
    except (OSError, ValueError) as error:
        again = " These are the data that the configuration remembers; name others with --data."
        raise ConfigError(f"{error}{again if remembered else ''}") from error
    changes = [] if remembered else _remember(cfg, given)
    for split, name in (("train", user.train_name), ("test", user.val_name)):
        if name is not None:
            key = f"dataloader.{split}.dataset.names"
            changes.append(f"{key}: {OmegaConf.select(cfg, key)} -> {name}")
            OmegaConf.update(cfg, key, name)
    key = "dataloader.train.dataset.filter_empty"
    if user.train_name is not None and OmegaConf.select(cfg, key):
        # COCO's recipes leave these out; of one's own images they are meant as negatives.
        changes.append(f"{key}: True -> False (images without boxes are negatives)")
        OmegaConf.update(cfg, key, False)
    if user.val_name is None:
        changes += _without_test_set(cfg)
    if cfg.model.get("num_classes") != user.num_classes:
        changes.append(f"model.num_classes: {cfg.model.get('num_classes')} -> {user.num_classes}")
        cfg.model.num_classes = user.num_classes
    return changes


def _paths(given: dict[str, Any], eval_only: bool, remembered: bool) -> dict[str, str]:
    """Paths by their names in :data:`FILES`."""
    path, files = given.get("path"), {key: given[key] for key in FILES if key in given}
    if path is None:
        if "split" in given:
            raise ConfigError("--split parts the data that --data names: give both.")
        if eval_only and not ("val_json" in files or "val_images" in files):
            raise ConfigError("An evaluation needs --val-json and --val-images; give both.")
        return files
    if files:
        raise ConfigError("--data names all files; leave --train-json and the like out.")
    from ..data.layouts import open_data

    opened = open_data(path, given.get("split"))
    train, val = opened.train, opened.val
    if eval_only and not opened.is_named and not remembered:
        val = train  # there is no other use for it; what is remembered was trained on
    if (val if eval_only else train) is None:
        needed = "validation" if eval_only else "training"
        hint = " --split 0.2 takes a fifth of its images." if eval_only else ""
        raise ConfigError(f"--data {path}: has no {needed} set.{hint}")
    found = {"train": train, "val": val}
    return {
        f"{name}_{kind}": value
        for name, part in found.items()
        if part is not None
        for kind, value in zip(("json", "images"), part, strict=True)
    }


def _registered(paths: dict[str, str]) -> Any:
    """The :class:`UserDatasets` of these files, which the main process checks."""
    from ..data import register_user_datasets, validate_coco

    user = register_user_datasets(*(paths.get(key) for key in FILES))
    if comm.is_main_process():  # the others end with it
        for name in ("train", "val"):
            if f"{name}_json" in paths:
                report = validate_coco(paths[f"{name}_json"], paths[f"{name}_images"])
                logger.info("%s", report.format())
                report.raise_if_errors()
    return user


def _remember(cfg: DictConfig, given: dict[str, Any]) -> list[str]:
    """Keep what was given, with absolute paths; nothing else of ``train.data`` stays."""
    changes = []
    for key, old in list(cfg.train.data.items()):
        value = given.get(key, type(old)())
        new = os.path.abspath(value) if isinstance(value, str) and value else value
        if new != old:
            changes.append(f"train.data.{key}: {old or 'none'} -> {new or 'none'}")
            cfg.train.data[key] = new
    return changes


def _without_test_set(cfg: DictConfig) -> list[str]:
    """The config's test set has other classes: only what becomes of test images stays."""
    for name in ("evaluator", "tta"):
        cfg.dataloader.pop(name, None)
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper")
    if mapper is not None:
        cfg.dataloader.test = {"mapper": mapper}
    return ["dataloader.test, dataloader.evaluator: removed, there is no validation set"]


def has_test_set(cfg: DictConfig) -> bool:
    """Whether there is something to evaluate on, and not only the images' preparation."""
    return OmegaConf.select(cfg, "dataloader.test._target_") is not None
