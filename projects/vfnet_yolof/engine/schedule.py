"""Recipes on another batch size than they were made for."""

from __future__ import annotations

import logging
import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .options import ConfigError

logger = logging.getLogger(f"detectron2.{__name__}")

_PERIODS = ("train.max_iter", "train.eval_period", "train.checkpointer.period")


def auto_scale(cfg: DictConfig, total_batch: int) -> list[str]:
    """Scale the recipe from ``train.reference_batch_size`` to ``total_batch`` images, in place.

    The learning rate is multiplied by the ratio r of the two, the length of the run and the
    periods of evaluation and checkpoints are divided by it. Steps and warm-up follow: the schedule
    is relative to the length. The decay d of averaged weights becomes d ** r, so that they cover
    as many images as before.

    Returns:
        one line ``key: old -> new`` for each change; none if the sizes agree.

    Raises:
        ConfigError: ``total_batch`` is not positive.
    """
    reference = cfg.train.reference_batch_size
    if total_batch <= 0:
        raise ConfigError(f"dataloader.train.total_batch_size={total_batch}: must be positive.")
    ratio = total_batch / reference
    if ratio == 1.0:
        return []
    changes = []
    for key in ("optimizer.lr", "optimizer.params.base_lr"):
        value = OmegaConf.select(cfg, key)
        if value is not None and not _is_reference(cfg, key):
            changes.append(_set(cfg, key, value * ratio))
    for key in _PERIODS:
        value = OmegaConf.select(cfg, key)
        if value > 0:
            changes.append(_set(cfg, key, max(1, math.ceil(value / ratio))))
    if cfg.train.ema.enabled:
        changes.append(_set(cfg, "train.ema.decay", cfg.train.ema.decay**ratio))
    # The config is saved with the run; loaded again it must not be scaled once more.
    cfg.train.reference_batch_size = total_batch
    return changes


def small_batch(cfg: DictConfig, total_batch: int) -> list[str]:
    """Preset for batches far below the recipe's, whose gradients are noisy; changes in place.

    :func:`auto_scale`, gradient clipping, and a warm-up four times as long (at most a tenth of
    the run) that starts at a thousandth of the learning rate. Returns the changes as lines.
    """
    changes = auto_scale(cfg, total_batch)
    if not cfg.train.clip_grad.enabled:
        changes.append(_set(cfg, "train.clip_grad.enabled", True))
    length = OmegaConf.select(cfg, "lr_multiplier.warmup_length")
    if length is None:
        logger.warning("--small-batch: lr_multiplier has no warm-up that could be made longer.")
        return changes
    longer = max(length, min(4 * length, 0.1))
    changes.append(_set(cfg, "lr_multiplier.warmup_length", longer))
    factor = min(0.001, cfg.lr_multiplier.warmup_factor)
    changes.append(_set(cfg, "lr_multiplier.warmup_factor", factor))
    return changes


def warn_about_batch_size(cfg: DictConfig, total_batch: int) -> str | None:
    """Warn, and return the warning, if the batch is not the recipe's and nothing was scaled."""
    reference = cfg.train.reference_batch_size
    if total_batch == reference:
        return None
    message = (
        f"This recipe is for {reference} images per iteration; this run has {total_batch}. "
        "With --auto-scale the learning rate, the number of iterations and the warm-up follow "
        "(--small-batch clips gradients as well). If they are set for this batch already, say "
        f"train.reference_batch_size={total_batch}."
    )
    logger.warning(message)
    return message


def _is_reference(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    return OmegaConf.is_interpolation(OmegaConf.select(cfg, parent), name)


def _set(cfg: DictConfig, key: str, value: Any) -> str:
    old = OmegaConf.select(cfg, key)
    OmegaConf.update(cfg, key, value)
    return f"{key}: {old} -> {value}"
