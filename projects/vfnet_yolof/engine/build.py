"""The parts of a run as a prepared config has them: model, optimizer, loader, step and hooks."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from detectron2.engine import hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..config.options import ConfigError
from ..config.own_data import has_test_set
from ..config.parts import built, built_model, config_errors
from ..utils.state import seed_everything
from .checkpoints import CheckpointFiles, CheckpointHook
from .evaluation import Evaluation, ValidationLoss
from .evaluation_hooks import BestCheckpointHook, EarlyStoppingHook, EvaluationRound, Measure
from .failures import together
from .memory import checkpoint_activations
from .step import AMP_DTYPES, GradientClipping, TrainStep
from .swa import EMAHook, build_swa_hook
from .trainer import Trainer
from .writers import build_writers


def build_model(cfg: DictConfig) -> nn.Module:
    """The model on ``cfg.train.device``, the same on every process for the same seed."""
    seed_everything(cfg.train.seed)
    model = built_model(cfg.model)
    return model.to(cfg.train.device)


def build_tta(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """The model inside ``dataloader.tta``; the test images then come at their own size.

    Raises:
        ConfigError: the config does not say how to test at several sizes.
    """
    if cfg.dataloader.get("tta") is None:
        raise ConfigError(
            "--tta: this config has no dataloader.tta; configs/common/data/coco.py shows one."
        )
    cfg.dataloader.test.mapper.augmentations = []
    cfg.dataloader.tta.model = model
    tta = built("dataloader.tta", cfg.dataloader.tta)
    del cfg.dataloader.tta.model
    return tta


def wrap_distributed(model: nn.Module, cfg: DictConfig) -> nn.Module:
    """DistributedDataParallel where there are several processes, on CPUs as well."""
    options: dict[str, Any] = {str(name): value for name, value in cfg.train.ddp.items()}
    if cfg.train.device == "cpu":
        options["device_ids"] = None
        options.pop("fp16_compression")
    else:  # not the local rank: Slurm may show each process its own GPU only
        options["device_ids"] = [torch.cuda.current_device()]
    return create_ddp_model(model, **options)


def build_trainer(cfg: DictConfig, model: nn.Module) -> Trainer:
    """The trainer with optimizer, data loader and step, but without its hooks.

    Raises:
        ConfigError: one of them cannot be built.
    """
    if cfg.train.channels_last:  # convolutions pass it on from their weights to their outputs
        model.to(memory_format=torch.channels_last)
    if cfg.train.activation_checkpointing:
        checkpoint_activations(model)
    with config_errors("optimizer"):
        cfg.optimizer.params.model = model
    optimizer = built("optimizer", cfg.optimizer)
    del cfg.optimizer.params.model
    loader = built("dataloader.train", cfg.dataloader.train)
    train, clip = cfg.train, cfg.train.clip_grad
    step = TrainStep(
        wrap_distributed(model, cfg),
        optimizer,
        device=train.device,
        amp_dtype=train.amp.dtype if train.amp.enabled else None,
        clip=GradientClipping(clip.max_norm, clip.norm_type, clip.kind) if clip.enabled else None,
        accumulate=train.accumulate,
    )
    return Trainer(step, loader)


def build_hooks(
    cfg: DictConfig, trainer: Trainer, files: CheckpointFiles, evaluation: Evaluation
) -> list[Any]:
    """Hooks in the order in which they must run; None where one is not asked for.

    Raises:
        ConfigError: one of them cannot be built, or what it measures cannot be.
    """
    train = cfg.train
    evaluates = _check_evaluation(evaluation)
    ema = None
    if train.ema.enabled:
        ema = EMAHook(trainer.bare_model, decay=train.ema.decay, warmup=train.ema.warmup)

    def model_to_test() -> nn.Module:
        return trainer.bare_model if ema is None else ema.module

    def stop() -> bool:
        return trainer.stop_requested

    measures: list[Measure] = []
    if train.val_loss.enabled:
        amp = AMP_DTYPES[train.amp.dtype] if train.amp.enabled else None
        loader = evaluation.loader_with_ground_truth()
        measures.append(ValidationLoss(model_to_test, loader, amp, stop=stop))
    if evaluates:
        measures.append(lambda: flatten_results_dict(evaluation(model_to_test(), stop=stop)))
    judges: list[Any] = []
    if measures:
        best = BestCheckpointHook(files, **train.best_checkpoint)
        judges.append(best)
        if train.early_stopping.patience > 0:
            judges.append(EarlyStoppingHook(best, train.early_stopping.patience))
    checkpoints = CheckpointHook(files, **train.checkpointer)
    swa = None
    if train.swa.enabled:
        swa = build_swa_hook(train, trainer, files, partial(evaluation, stop=stop))
    writers = None
    if comm.is_main_process():
        per_epoch = getattr(trainer.data_loader, "iterations_per_epoch", None)
        writers = hooks.PeriodicWriter(
            build_writers(train.output_dir, train.max_iter, per_epoch), period=train.log_period
        )
    return [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=built("lr_multiplier", cfg.lr_multiplier)),
        ema,
        swa,
        EvaluationRound(train.eval_period, checkpoints, measures, judges, swa),
        *judges,
        checkpoints,
        writers,
    ]


def _check_evaluation(evaluation: Evaluation) -> bool:
    """Find out before training whether all that is to be measured can be; whether it evaluates.

    Raises:
        ConfigError: there is no test set, it has other classes, or it cannot be read.
    """
    cfg = evaluation.cfg
    evaluates, with_losses = evaluation.has_images, cfg.train.val_loss.enabled
    _require_test_set(cfg, evaluates)
    if evaluates:
        _ = evaluation.loader
    if (evaluates or with_losses) and evaluation.class_lookup is not None and with_losses:
        raise ConfigError(
            "train.val_loss.enabled needs the classes of the test set in the order of the training "
            "set; give both annotation files the same category ids."
        )
    if evaluates:
        together(evaluation.try_out)
    return evaluates


def _require_test_set(cfg: DictConfig, evaluates: bool) -> None:
    if cfg.train.val_loss.enabled and not has_test_set(cfg):
        raise ConfigError("train.val_loss.enabled needs a test set: --val-json and --val-images.")
    measured = evaluates or cfg.train.val_loss.enabled
    if cfg.train.early_stopping.patience > 0:
        if not measured:
            raise ConfigError("train.early_stopping.patience needs a test set to measure on.")
        if cfg.train.eval_period <= 0:
            raise ConfigError("train.early_stopping.patience needs train.eval_period > 0.")
