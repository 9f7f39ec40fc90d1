"""The parts of a run: model, loaders, step, evaluation and hooks, as a prepared config has them."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import torch
from detectron2.engine import hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config.options import ConfigError
from ..config.parts import built, built_model, config_errors
from ..data.loader import DataLoadingError, check_pictures
from ..modeling.by_size import BySize
from ..utils.class_names import Classes
from ..utils.state import seed_everything
from .agreement import together
from .checkpoints import CheckpointFiles
from .classes import EvaluatorByName, check_num_classes, class_lookup, dataset_classes
from .hooks import BestCheckpointHook, EarlyStoppingHook, EMAHook
from .measures import Stop, ValidationLoss, evaluate_on, never
from .recompute import recompute_backbone
from .rounds import EvaluationRound, Measure
from .saving import CheckpointHook
from .step import AMP_DTYPES, GradientClipping, TrainStep
from .swa import build_swa_hook
from .trainer import Trainer
from .writers import build_writers


class Evaluation:
    """Evaluates models on ``cfg.dataloader.test``; loader and evaluator are built when needed.

    Args:
        classes: those of the models; detections are given to the evaluator by name.
    """

    def __init__(self, cfg: DictConfig, classes: Classes) -> None:
        self.cfg = cfg
        self.classes = classes

    @cached_property
    def loader(self) -> Any:
        return built("dataloader.test", self.cfg.dataloader.test)

    @cached_property
    def class_lookup(self) -> list[int] | None:
        """Number in the test set of each class of the model; None where they are counted alike.

        Raises:
            ConfigError: the test set has other classes.
        """
        check_num_classes(self.cfg, split="test")
        return class_lookup(self.classes, dataset_classes(self.cfg, split="test"))

    @cached_property
    def evaluator(self) -> Any:
        evaluator = built("dataloader.evaluator", self.cfg.dataloader.evaluator)
        if self.class_lookup is None:
            return evaluator
        return EvaluatorByName(evaluator, self.class_lookup)

    def __call__(self, model: nn.Module, *, stop: Stop = never) -> dict[str, Any]:
        """Results as the evaluator gives them, on every process; see :func:`evaluate_on`."""
        if "evaluator" not in self.cfg.dataloader:
            return {}
        return evaluate_on(BySize(model), self.loader, self.evaluator, stop=stop)

    def try_out(self) -> None:
        """Find out before training whether an evaluation could be made.

        Builds what it needs and looks at the pictures, see :func:`check_pictures`; every process
        at its share.

        Raises:
            ConfigError: it could not be made.
        """
        together(self._try_out)

    def _try_out(self) -> None:
        _ = self.evaluator
        try:
            check_pictures(self.loader)
        except DataLoadingError as error:
            raise ConfigError(f"dataloader.test: {error}") from error

    def loader_with_boxes(self) -> Any:
        """The same images with their annotations, for the validation loss."""
        cfg = OmegaConf.masked_copy(self.cfg, [k for k in self.cfg if k != "model"])
        if OmegaConf.select(cfg, "dataloader.test.mapper.is_train") is not None:
            cfg.dataloader.test.mapper.is_train = True
        return built("dataloader.test", cfg.dataloader.test)


def build_model(cfg: DictConfig) -> nn.Module:
    """The model on ``cfg.train.device``, the same on every process for the same seed."""
    seed_everything(cfg.train.seed)
    model = built_model(cfg.model)
    return model.to(cfg.train.device)


def build_tta(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """``dataloader.tta`` around the model; the test pictures then come at their own size.

    Raises:
        ConfigError: the config does not say how to test at several sizes.
    """
    if cfg.dataloader.get("tta") is None:
        raise ConfigError(
            "--tta: this config has no dataloader.tta; configs/common/data/coco.py shows one."
        )
    cfg.dataloader.test.mapper.augmentations = []
    cfg.dataloader.tta.model = model
    around = built("dataloader.tta", cfg.dataloader.tta)
    del cfg.dataloader.tta.model
    return around


def wrap_distributed(model: nn.Module, cfg: DictConfig) -> nn.Module:
    """DistributedDataParallel where there are several processes, on CPUs as well."""
    options = OmegaConf.to_container(cfg.train.ddp)
    if cfg.train.device == "cpu":
        options["device_ids"] = None
        options.pop("fp16_compression")
    else:  # not the local rank: Slurm may show each process its own GPU only
        options["device_ids"] = [torch.cuda.current_device()]
    return create_ddp_model(model, **options)


def build_trainer(cfg: DictConfig, model: nn.Module) -> Trainer:
    """Optimizer, loader and step; hooks come later."""
    if cfg.train.channels_last:  # convolutions pass it on from their weights to their outputs
        model.to(memory_format=torch.channels_last)
    if cfg.train.activation_checkpointing:
        recompute_backbone(model)
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


def build_hooks(cfg: DictConfig, trainer: Trainer, files: CheckpointFiles) -> list[Any]:
    """Hooks in the order in which they must run; None where one is not asked for."""
    train, evaluation = cfg.train, Evaluation(cfg, dataset_classes(cfg))
    evaluates = _try_out(evaluation)
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
        loader = evaluation.loader_with_boxes()
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
        writers = hooks.PeriodicWriter(
            build_writers(train.output_dir, train.max_iter), period=train.log_period
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


def _try_out(evaluation: Evaluation) -> bool:
    """Find out before training whether what the config measures can be; whether it evaluates.

    Raises:
        ConfigError: it cannot be.
    """
    cfg = evaluation.cfg
    evaluates, with_losses = "evaluator" in cfg.dataloader, cfg.train.val_loss.enabled
    _require_test_set(cfg)
    if evaluates:
        _ = evaluation.loader
    if evaluates or with_losses:
        _check_test_classes(evaluation, with_losses=with_losses)
    if evaluates:
        evaluation.try_out()
    return evaluates


def _require_test_set(cfg: DictConfig) -> None:
    if cfg.train.val_loss.enabled and "test" not in cfg.dataloader:
        raise ConfigError("train.val_loss.enabled needs a test set: --val-json and --val-images.")
    measured = "evaluator" in cfg.dataloader or cfg.train.val_loss.enabled
    if cfg.train.early_stopping.patience > 0:
        if not measured:
            raise ConfigError("train.early_stopping.patience needs a test set to measure on.")
        if cfg.train.eval_period <= 0:
            raise ConfigError("train.early_stopping.patience needs train.eval_period > 0.")


def _check_test_classes(evaluation: Evaluation, *, with_losses: bool) -> None:
    """Before training: the test set has the model's classes; losses need them in its order."""
    if evaluation.class_lookup is not None and with_losses:
        raise ConfigError(
            "train.val_loss.enabled needs the classes of the test set in the order of the training "
            "set; give both annotation files the same category ids."
        )
