"""From a prepared config to a trained model, or to the metrics of one."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .checkpoints import CheckpointFiles
from .classes import check_num_classes, train_class_names
from .fine_tune import load_checkpoint_for_evaluation, load_for_fine_tuning, load_initial_weights
from .hooks import (
    BestCheckpointHook,
    CheckpointHook,
    EarlyStoppingHook,
    EMAHook,
    EvaluationHook,
    ValidationLossHook,
)
from .options import ConfigError
from .state import seed_everything
from .step import AMP_DTYPES, GradientClipping, TrainStep
from .trainer import Trainer

logger = logging.getLogger(f"detectron2.{__name__}")

EXIT_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


class Evaluation:
    """Evaluates models on ``cfg.dataloader.test``, which is built at the first call."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self._loader: Any = None

    @property
    def loader(self) -> Any:
        if self._loader is None:
            self._loader = built("dataloader.test", self.cfg.dataloader.test)
        return self._loader

    def __call__(self, model: nn.Module) -> dict[str, Any]:
        """Results as the evaluator gives them, on every process."""
        if "evaluator" not in self.cfg.dataloader:
            return {}
        evaluator = built("dataloader.evaluator", self.cfg.dataloader.evaluator)
        results = inference_on_dataset(model, self.loader, evaluator)
        if comm.is_main_process() and results:
            print_csv_format(results)
        # Only the main process has them; the others decide by them, too.
        return comm.all_gather(results)[0] or {}

    def loader_with_boxes(self) -> Any:
        """The same images with their annotations, for the validation loss."""
        cfg = OmegaConf.masked_copy(self.cfg, [k for k in self.cfg if k != "model"])
        if OmegaConf.select(cfg, "dataloader.test.mapper.is_train") is not None:
            cfg.dataloader.test.mapper.is_train = True
        return built("dataloader.test", cfg.dataloader.test)


def built(key: str, node: DictConfig) -> Any:
    """What the node at ``key`` of the config describes.

    Raises:
        ConfigError: a value in it is refused by the class that it is for.
    """
    try:
        return instantiate(node)
    except ConfigError:
        raise
    except (KeyError, ValueError) as error:
        # str() of a KeyError is its message in quotes
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ConfigError(f"{key}: {reason}") from error


def build_model(cfg: DictConfig) -> nn.Module:
    """The model on ``cfg.train.device``, the same on every process for the same seed."""
    seed_everything(cfg.train.seed)
    model = built("model", cfg.model)
    return model.to(cfg.train.device)


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
    )
    return Trainer(step, loader)


def build_hooks(
    cfg: DictConfig, trainer: Trainer, files: CheckpointFiles
) -> tuple[list[Any], EMAHook | None]:
    """Hooks in the order in which they must run, and the averaging one if there is one."""
    train, evaluation = cfg.train, Evaluation(cfg)
    evaluates = "evaluator" in cfg.dataloader
    _require_test_set(cfg)
    if evaluates:
        _ = evaluation.loader  # whatever is wrong with the test set shows before training
        check_num_classes(cfg, split="test")
    ema = None
    if train.ema.enabled:
        ema = EMAHook(trainer.bare_model, decay=train.ema.decay, warmup=train.ema.warmup)

    def model_to_test() -> nn.Module:
        return trainer.bare_model if ema is None else ema.module

    validation = None
    if train.val_loss.enabled:
        amp = AMP_DTYPES[train.amp.dtype] if train.amp.enabled else None
        loader = _once(evaluation.loader_with_boxes)
        validation = ValidationLossHook(train.eval_period, model_to_test, loader, amp)
    best = BestCheckpointHook(files, train.eval_period, **train.best_checkpoint)
    stopping = None
    if train.early_stopping.patience > 0:
        stopping = EarlyStoppingHook(best, train.eval_period, train.early_stopping.patience)
    writers = None
    if comm.is_main_process():
        writers = hooks.PeriodicWriter(
            default_writers(train.output_dir, train.max_iter), period=train.log_period
        )
    return [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=built("lr_multiplier", cfg.lr_multiplier)),
        ema,
        validation,
        EvaluationHook(train.eval_period, lambda: evaluation(model_to_test()))
        if evaluates
        else None,
        best if evaluates or validation else None,
        stopping,
        CheckpointHook(files, **train.checkpointer),
        writers,
    ], ema


def _require_test_set(cfg: DictConfig) -> None:
    if cfg.train.val_loss.enabled and "test" not in cfg.dataloader:
        raise ConfigError("train.val_loss.enabled needs a test set: --val-json and --val-images.")
    measured = "evaluator" in cfg.dataloader or cfg.train.val_loss.enabled
    if cfg.train.early_stopping.patience > 0 and not measured:
        raise ConfigError("train.early_stopping.patience needs a test set to measure on.")


def _once(build: Callable[[], Any]) -> Callable[[], Any]:
    built: list[Any] = []

    def get() -> Any:
        if not built:
            built.append(build())
        return built[0]

    return get


def train_model(
    cfg: DictConfig,
    *,
    resume: bool = False,
    init_from: str = "",
    config_file: str = "",
    on_start: Callable[[], None] | None = None,
) -> int:
    """Train as the prepared config says; returns the exit status, 130 after Ctrl-C.

    Args:
        resume: continue from the last checkpoint in ``train.output_dir``, if there is one.
        init_from: checkpoint to start from; layers for another number of classes stay fresh.
        config_file: recorded in the checkpoints.
        on_start: called when model, data and checkpoint are known to fit, before the first
            iteration; a run that cannot start leaves an earlier run's records alone.

    Raises:
        FloatingPointError: a loss is not finite.
        ConfigError: model and data set disagree on the classes.
    """
    files = CheckpointFiles(cfg.train.output_dir, writable=comm.is_main_process())
    files.remove_leftovers()
    saved = _last_checkpoint(files, resume)
    settle_seed(cfg, saved)
    model = build_model(cfg)
    if saved is not None:
        _load_model(model, saved["model"], files)
    elif init_from:
        load_for_fine_tuning(model, init_from)
    elif cfg.train.init_checkpoint:
        load_initial_weights(model, cfg.train.init_checkpoint)
    trainer = build_trainer(cfg, model)
    check_num_classes(cfg)
    trainer.record = {
        "class_names": train_class_names(cfg),
        "config_file": config_file,
        "seed": int(cfg.train.seed),
    }
    hook_list, ema = build_hooks(cfg, trainer, files)
    trainer.register_hooks(hook_list)
    start = 0
    if saved is not None:
        start = _restore(trainer, ema, saved, cfg)
    seed_everything(cfg.train.seed + 1 + comm.get_rank())  # dropout differs between processes
    _log_run(cfg, trainer)
    if on_start is not None:
        on_start()
    with interruptible(trainer):
        trainer.train(start, cfg.train.max_iter)
    if trainer.stop_requested:
        logger.warning(
            "Interrupted at iteration %d; continue with --resume", trainer.iterations_done
        )
        return EXIT_INTERRUPTED
    return 0


def _last_checkpoint(files: CheckpointFiles, resume: bool) -> dict[str, Any] | None:
    last = files.last() if resume else None
    if last is not None:
        logger.info("Resuming from %s", last)
        return files.load(last)
    if resume:
        logger.warning("There is no checkpoint in %s: training starts afresh.", files.folder)
    elif (files.folder / "last_checkpoint").exists():
        logger.warning(
            "%s holds another run's checkpoints, which will be overwritten; --resume would "
            "continue that run.",
            files.folder,
        )
    return None


def _load_model(model: nn.Module, weights: dict[str, Any], files: CheckpointFiles) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ConfigError(
            f"{files.last()} is of another model ({first[0].strip()}). Resume with the config of "
            "the first run, or start from the weights: --init-from, without --resume."
        ) from error


def settle_seed(cfg: DictConfig, saved: dict[str, Any] | None = None) -> None:
    """Give ``cfg.train.seed`` a value: the configured, the resumed run's, or one drawn now."""
    seed = cfg.train.seed
    before = None if saved is None else saved.get("seed")
    if seed is None or seed < 0:
        seed = comm.shared_random_seed() % 2**31 if before is None else before
    elif before is not None and seed != before:
        logger.warning("Resumed with seed %d instead of %d: other batches follow.", seed, before)
    cfg.train.seed = int(seed)
    loader = cfg.dataloader.get("train")
    if loader is not None and loader.get("seed") is None and _accepts(loader, "seed"):
        loader.seed = cfg.train.seed


def _accepts(node: DictConfig, name: str) -> bool:
    from .overrides import parameters_of

    return name in (parameters_of(node) or {})


def _restore(trainer: Trainer, ema: EMAHook | None, saved: dict[str, Any], cfg: DictConfig) -> int:
    trainer.max_iter = cfg.train.max_iter
    trainer.load_state_dict(saved["trainer"])
    trainer.report_schedule_changes(saved["trainer"]["schedule"])
    if ema is not None:
        if "ema" in saved:
            ema.load_weights(saved["ema"])
        else:
            logger.warning("The checkpoint has no averaged weights: averaging starts now.")
    return trainer.iterations_done


def _log_run(cfg: DictConfig, trainer: Trainer) -> None:
    loader = trainer.data_loader
    epoch = getattr(loader, "iterations_per_epoch", None)
    batch = getattr(loader, "total_batch_size", None)
    logger.info(
        "Device: %s; processes: %d; seed: %d; images per iteration: %s; iterations: %d (%s)",
        *(cfg.train.device, comm.get_world_size(), cfg.train.seed, batch, cfg.train.max_iter),
        f"{cfg.train.max_iter / epoch:.1f} epochs of {epoch}" if epoch else "epoch length unknown",
    )


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C asks the trainer to stop after the iteration; a second one stops at once."""
    asked_at: list[float] = []

    def ask(signum: int, frame: Any) -> None:
        # Launchers pass the signal on to processes that the terminal has told already.
        if asked_at and time.monotonic() - asked_at[0] > 1.0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        if not asked_at:
            asked_at.append(time.monotonic())
            logger.warning("Ctrl-C: stopping after this iteration; again to stop at once.")
        trainer.stop_requested = True

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def evaluate_model(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate ``train.init_checkpoint``, or else the best or last of ``train.output_dir``.

    Averaged weights are used if the checkpoint has them. Results go to the log and, as one line,
    to ``metrics.json``.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    settle_seed(cfg)
    model = build_model(cfg)
    iteration = load_checkpoint_for_evaluation(model, cfg.train)
    check_num_classes(cfg, split="test")
    results = Evaluation(cfg)(model)
    if comm.is_main_process():
        values = flatten_results_dict(results)
        # JSON knows no NaN; null is what its readers understand.
        line = {"iteration": iteration, **{k: v if v == v else None for k, v in values.items()}}
        path = Path(cfg.train.output_dir) / "metrics.json"
        os.makedirs(path.parent, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        logger.info("Metrics appended to %s", path)
    return results


def use_device(cfg: DictConfig) -> None:
    """Make ``train.device`` the current one; the CPU, with a line that says so, without CUDA.

    Raises:
        ConfigError: a device that does not exist, or one GPU named for several processes.
    """
    name = cfg.train.device
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ConfigError(f"train.device={name}: cpu, cuda or cuda:N expected.")
    if kind == "cpu":
        if comm.get_world_size() > 1 and torch.distributed.get_backend() == "nccl":
            raise ConfigError("train.device=cpu: add --num-gpus 0, so that processes can talk.")
        cfg.train.device = "cpu"
        return
    if not torch.cuda.is_available():
        logger.warning("CUDA is not available: training on the CPU")
        cfg.train.device = "cpu"
    elif index:
        if comm.get_world_size() > 1:
            raise ConfigError(f"train.device={name}: several processes need train.device=cuda.")
        if int(index) >= torch.cuda.device_count():
            raise ConfigError(f"train.device={name}: there are {torch.cuda.device_count()} GPUs.")
        torch.cuda.set_device(int(index))  # events and random states are the current device's
