"""Recipes on another batch size than they were made for."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .options import ConfigError

logger = logging.getLogger(f"detectron2.{__name__}")

_PERIODS = ("train.max_iter", "train.eval_period", "train.checkpointer.period")
# What a yacs key on the command line says about the config that is made of the file.
YACS_KEYS = {
    "SOLVER.BASE_LR": "optimizer.lr",
    "SOLVER.MAX_ITER": "train.max_iter",
    "SOLVER.CHECKPOINT_PERIOD": "train.checkpointer.period",
    "SOLVER.WARMUP_ITERS": "lr_multiplier.warmup_length",
    "SOLVER.WARMUP_FACTOR": "lr_multiplier.warmup_factor",
    "SOLVER.CLIP_GRADIENTS.ENABLED": "train.clip_grad.enabled",
    "TEST.EVAL_PERIOD": "train.eval_period",
}


def auto_scale(cfg: DictConfig, total_batch: int, *, explicit: Collection[str] = ()) -> list[str]:
    """Scale the recipe from ``train.reference_batch_size`` to ``total_batch`` images, in place.

    The learning rate is multiplied by the ratio r of the two, the length of the run and the
    periods of evaluation and checkpoints are divided by it. Steps and warm-up follow: the schedule
    is relative to the length. The decay d of averaged weights becomes d ** r, so that they cover
    as many images as before.

    Args:
        explicit: keys that the user gave on the command line. Their values are meant for the
            batch of this run and stay; the log names them.

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
    scaled: dict[str, Any] = {}
    for key in ("optimizer.lr", "optimizer.params.base_lr"):
        value = OmegaConf.select(cfg, key)
        if value is not None and not _is_reference(cfg, key):
            scaled[key] = value * ratio
    for key in _PERIODS:
        value = OmegaConf.select(cfg, key)
        if value > 0:
            scaled[key] = max(1, math.ceil(value / ratio))
    if cfg.train.ema.enabled:
        scaled["train.ema.decay"] = cfg.train.ema.decay**ratio
    changes = _set_all(cfg, scaled, explicit)
    # The config is saved with the run; loaded again it must not be scaled once more.
    cfg.train.reference_batch_size = total_batch
    return changes


def small_batch(cfg: DictConfig, total_batch: int, *, explicit: Collection[str] = ()) -> list[str]:
    """Preset for batches far below the recipe's, whose gradients are noisy; changes in place.

    :func:`auto_scale`, gradient clipping, and a warm-up four times as long (at most a tenth of
    the run) that starts at a thousandth of the learning rate. Returns the changes as lines.
    """
    changes = auto_scale(cfg, total_batch, explicit=explicit)
    wanted: dict[str, Any] = {}
    if not cfg.train.clip_grad.enabled:
        wanted["train.clip_grad.enabled"] = True
    length = OmegaConf.select(cfg, "lr_multiplier.warmup_length")
    if length is None:
        logger.warning("--small-batch: lr_multiplier has no warm-up that could be made longer.")
    else:
        wanted["lr_multiplier.warmup_length"] = max(length, min(4 * length, 0.1))
        wanted["lr_multiplier.warmup_factor"] = min(0.001, cfg.lr_multiplier.warmup_factor)
    return changes + _set_all(cfg, wanted, explicit)


def fit_to_data(
    cfg: DictConfig, images: int, total_batch: int, epochs: float | None, explicit: Collection[str]
) -> list[str]:
    """Length, periods and warm-up of a run on own data, in place of those for COCO.

    Where nothing says how long, it is 12 epochs as of COCO's 1x schedule, but at least 4,000
    images, and never more images than the recipe. Evaluations and checkpoints come about ten times,
    at the end of an epoch. The warm-up stays as many images long, but at most a tenth of the run.

    Args:
        cfg: changed in place. Its learning rate is not looked at, see :func:`auto_scale`.
        images: of the training set.
        total_batch: images per iteration.
        epochs: how often each image is seen, if that was asked for.
        explicit: keys that the user gave on the command line, which stay.

    Returns:
        one line in words, and one line ``key: old -> new`` for each change.

    Raises:
        ConfigError: ``epochs`` is not positive, or has no end.
    """
    if epochs is not None and not 0 < epochs < math.inf:
        raise ConfigError(f"--epochs {epochs:g}: must be a number greater than 0.")
    recipe = cfg.train.max_iter * cfg.train.reference_batch_size
    seen = min(max(12 * images, 4000), recipe) if epochs is None else epochs * images
    per_epoch = images / total_batch
    max_iter = max(1, round(seen / total_batch))
    if "train.max_iter" in explicit:
        max_iter = cfg.train.max_iter
    between = max(1, round(max_iter / per_epoch / 10))
    period = max(1, round(between * per_epoch))
    wanted: dict[str, Any] = {
        "train.max_iter": max_iter,
        "train.eval_period": period,
        "train.checkpointer.period": period,
        "train.log_period": max(1, min(cfg.train.log_period, max_iter // 20)),
    }
    length = OmegaConf.select(cfg, "lr_multiplier.warmup_length")
    if length is not None:
        wanted["lr_multiplier.warmup_length"] = min(length * recipe / (max_iter * total_batch), 0.1)
    changes = _set_all(cfg, wanted, explicit)
    plan = (
        f"{images} images, {_rounded(max_iter / per_epoch)} epochs of {_rounded(per_epoch)} "
        "iterations, "
        f"evaluation every {_rounded(cfg.train.eval_period / per_epoch)}"
    )
    logger.info("%s (--epochs N changes the length)", plan)
    return [f"schedule of own data: {plan}", *changes]


def _rounded(number: float) -> str:
    """Of a count: whole, or with one digit behind the point."""
    return f"{number:.1f}".removesuffix(".0")


def resumed_iteration(
    saved: Mapping[str, Any], done: int, train: DictConfig, total_batch: int, *, scaled: bool
) -> int:
    """Iterations that count as done when a run goes on with another batch.

    The place in the schedule is the share of the images seen. Only where the batch alone was
    changed (``max_iter`` is what it was, and nothing scaled it) does the schedule go on counting
    iterations; the log says so.

    Args:
        saved: schedule of the checkpoint, see ``Trainer.state_dict``. done: its iterations.
        train: the present ``train`` options. total_batch: images per iteration now.
        scaled: ``--auto-scale`` or ``--small-batch`` is on.

    Raises:
        ConfigError: so many iterations are not in the present schedule.
    """
    before = int(saved.get("total_batch_size", 0))
    if not before or not total_batch or before == total_batch:
        now, counted = done, f"{done} iterations"
    elif not scaled and train.max_iter == saved.get("max_iter"):
        now, counted = done, f"{done} iterations"
        logger.warning(
            "The run goes on after %d of %d iterations, though each has %d images now and had %d: "
            "with --auto-scale its place is the share of the images seen.",
            *(done, train.max_iter, total_batch, before),
        )
    else:
        now = round(done * before / total_batch)
        counted = f"{done} iterations of {before} images, as many as {now} of {total_batch}"
        logger.info("The checkpoint was written after %s; training goes on there.", counted)
    if now > train.max_iter:
        raise ConfigError(
            f"train.max_iter={train.max_iter}, but the checkpoint was written after {counted}: "
            f"nothing is left to train. Set train.max_iter above {now}, or evaluate the "
            "checkpoint with vfnet-yolof evaluate."
        )
    return now


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


def _set_all(cfg: DictConfig, values: Mapping[str, Any], explicit: Collection[str]) -> list[str]:
    for key in values:
        if key in explicit:
            logger.info("%s=%s was given for this run and stays.", key, OmegaConf.select(cfg, key))
    return [
        _set(cfg, key, value)
        for key, value in values.items()
        if key not in explicit and value != OmegaConf.select(cfg, key)
    ]


def _set(cfg: DictConfig, key: str, value: Any) -> str:
    old = OmegaConf.select(cfg, key)
    OmegaConf.update(cfg, key, value)
    return f"{key}: {old} -> {value}"
