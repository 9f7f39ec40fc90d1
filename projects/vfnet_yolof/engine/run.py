"""From a prepared config to a trained model, or to the metrics of one."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..checkpoint.fitting import load_whole
from ..config.options import ConfigError
from ..config.overrides import parameters_of
from ..config.own_data import has_test_set
from ..config.schedule import resumed_iteration
from ..optimization import optimize
from ..utils.class_names import Classes
from ..utils.state import seed_everything
from .box_advice import advice
from .build import build_hooks, build_model, build_trainer, build_tta
from .checkpoints import FINAL, CheckpointFiles, CheckpointHook
from .classes import (
    check_num_classes,
    checkpoint_classes,
    class_record,
    dataset_classes,
    require_resumed_classes,
)
from .ending import (
    EXIT_SIGNAL,
    EvaluationFailed,
    OutputError,
    StopRequest,
    handled,
    signal_name,
)
from .evaluation import Evaluation
from .failures import together
from .fine_tune import (
    best_or_last,
    load_checkpoint_for_evaluation,
    load_for_fine_tuning,
    load_initial_weights,
)
from .progress import progress_line
from .run_folder import RunFolder
from .run_record import run_record
from .summary import NO_VALIDATION, Training, write_summary
from .swa import AveragingHook
from .trainer import Trainer
from .writers import METRICS, append_metrics

logger = logging.getLogger(f"detectron2.{__name__}")

# (detector, its classes) -> what detects in its place, and what that is called
Runtime = Callable[[nn.Module, Classes], tuple[nn.Module, str]]


def train_model(
    cfg: DictConfig,
    *,
    resume: bool = False,
    init_from: str = "",
    config_file: str = "",
    scaled: bool = False,
    on_start: Callable[[], None] | None = None,
) -> int:
    """Train as the prepared config says.

    Args:
        cfg: changed in place: the seed is settled. Every checkpoint carries it as it was given.
        resume: continue from the last checkpoint in ``train.output_dir``, if there is one.
        init_from: checkpoint to start from; classes that it does not have stay fresh.
        config_file: recorded in the checkpoints.
        scaled: the config was scaled to this batch; see
            :func:`vfnet_yolof.config.schedule.resumed_iteration`.
        on_start: called when model, data and checkpoint are known to fit, before the first
            iteration; a run that cannot start leaves an earlier run's records alone.

    Returns:
        The exit status: 0, or 128 + the number of the signal that stopped training.

    Raises:
        FloatingPointError: a loss is not finite.
        DataLoadingError: an image could not be read.
        OutputError: something could not be written.
        EvaluationFailed: training is complete and saved, but the evaluation at its end failed.
        ConfigError: model or checkpoint and data set disagree on the classes, or the resumed run
            has more iterations behind it than ``train.max_iter``.
    """
    record = run_record(cfg)
    files = CheckpointFiles(cfg.train.output_dir, writable=comm.is_main_process())
    files.remove_leftovers()
    saved = _last_checkpoint(files, resume)
    settle_seed(cfg, saved)
    model = build_model(cfg)
    classes = dataset_classes(cfg)
    if saved is not None:
        require_resumed_classes(checkpoint_classes(saved, str(files.last())), classes)
        _load_model(model, saved["model"], files)
    elif init_from:
        load_for_fine_tuning(model, init_from, classes)
    elif cfg.train.init_checkpoint:
        load_initial_weights(model, cfg.train.init_checkpoint, classes)
    if comm.is_main_process() and any(cfg.train.data.values()):
        for sentence in advice(cfg, model):
            logger.warning(sentence)
    trainer = build_trainer(cfg, model)
    check_num_classes(cfg)
    trainer.record = {
        **class_record(cfg),
        **record,
        "config_file": config_file,
        "seed": int(cfg.train.seed),
        "threads": torch.get_num_threads(),
    }
    if saved is not None and "metrics" in saved:
        trainer.record["metrics"] = saved["metrics"]
    evaluation = Evaluation(cfg, classes)
    trainer.register_hooks(build_hooks(cfg, trainer, files, evaluation))
    start = 0
    if saved is not None:
        start = _restore(trainer, saved, cfg, scaled)
        _compare_threads(saved, cfg.train.device)
    seed_everything(cfg.train.seed + 1 + comm.get_rank())  # dropout differs between processes
    _log_run(cfg, trainer)
    if not evaluation.has_images and not cfg.train.val_loss.enabled:
        logger.warning(NO_VALIDATION)
    if on_start is not None:
        on_start()
    if resume:
        together(lambda: _clean_up(trainer, files))
    return _train(Training(cfg, trainer, files, evaluation, config_file), start)


def _train(run: Training, start: int) -> int:
    trainer, files = run.trainer, run.files
    asked = StopRequest(lambda: setattr(trainer, "stop_requested", True))
    max_iter = run.cfg.train.max_iter
    with handled(asked):
        with progress_line(trainer, start, max_iter):
            trainer.train(start, max_iter)
        status = _interrupted(trainer, asked) if trainer.interrupted else 0
        problem = _summarised(run)
    if trainer.evaluation_problem is not None:
        raise EvaluationFailed(
            f"The evaluation after training failed: {trainer.evaluation_problem}. Training is "
            f"complete: its weights are in {files.path(FINAL)}. To evaluate them: "
            f"vfnet-yolof evaluate {files.folder}"
        )
    if problem is not None and not status:
        raise problem
    return status


def _summarised(run: Training) -> OutputError | None:
    """Write the summary; its failure, of which the log tells, costs nothing that was trained."""
    try:
        together(lambda: write_summary(run) if comm.is_main_process() else None)
    except OutputError as error:
        logger.error("The training is saved, but its summary is not whole: %s", error)
        return error
    except Exception as error:
        logger.error("The training is saved, but has no summary: %s", error, exc_info=True)
    return None


def _clean_up(trainer: Trainer, files: CheckpointFiles) -> None:
    """Remove what a killed run has left half done, and say so."""
    if not comm.is_main_process():
        return
    RunFolder(files.folder).repair_metrics(trainer.iterations_done)
    last = files.last()
    for hook in trainer.hooks_of(CheckpointHook):
        if last is not None:
            stay = {*hook.recent, hook.temporary, last.stem}
            files.delete_orphans(stay, trainer.iterations_done)


def _interrupted(trainer: Trainer, asked: StopRequest) -> int:
    """The exit status after a signal, which may have reached some of the processes only."""
    signum = max(comm.all_gather(asked.signum)) or signal.SIGINT
    logger.warning(
        "Interrupted at iteration %d; continue with --resume (%s)",
        *(trainer.iterations_done, signal_name(signum)),
    )
    return EXIT_SIGNAL + signum


def _last_checkpoint(files: CheckpointFiles, resume: bool) -> dict[str, Any] | None:
    last = files.last() if resume else None
    if last is not None:
        logger.info("Resuming from %s", last)
        return files.load(last)
    if resume:
        logger.warning("There is no checkpoint in %s: training starts afresh.", files.folder)
    return None


def _load_model(model: nn.Module, weights: dict[str, Any], files: CheckpointFiles) -> None:
    try:
        load_whole(model, weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ConfigError(
            f"{files.last()} is of another model ({first[0].strip()}). Resume with the config of "
            "the first run, or start from the weights: --weights, without --resume."
        ) from error


def settle_seed(cfg: DictConfig, saved: dict[str, Any] | None = None) -> None:
    """Give ``cfg.train.seed`` a value: the configured one, the resumed run's, or a random one.

    Args:
        cfg: changed in place; a training loader without a seed gets the same one.
        saved: checkpoint of the run that is resumed.
    """
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


def _compare_threads(saved: dict[str, Any], device: str) -> None:
    before, now = saved.get("threads", 0), torch.get_num_threads()
    if device == "cpu" and before not in (0, now):
        logger.warning(
            "Resumed with %d threads instead of %d: sums are rounded differently. "
            "OMP_NUM_THREADS=%d goes on as before.",
            *(now, before, before),
        )


def _accepts(node: DictConfig, name: str) -> bool:
    return name in (parameters_of(node) or {})


def _restore(trainer: Trainer, saved: dict[str, Any], cfg: DictConfig, scaled: bool) -> int:
    trainer.max_iter = cfg.train.max_iter
    trainer.load_state_dict(saved["trainer"])
    schedule = saved["trainer"]["schedule"]
    trainer.report_schedule_changes(schedule)
    batch = getattr(trainer.data_loader, "total_batch_size", 0)
    done = trainer.iterations_done
    trainer.move_to(resumed_iteration(schedule, done, cfg.train, batch, scaled=scaled))
    for hook in trainer.hooks_of(AveragingHook):
        hook.restore(saved)
    return trainer.iterations_done


def _log_run(cfg: DictConfig, trainer: Trainer) -> None:
    loader = trainer.data_loader
    epoch = getattr(loader, "iterations_per_epoch", None)
    batch = getattr(loader, "total_batch_size", None)
    length = "epoch length unknown"
    if epoch:
        length = f"{cfg.train.max_iter / epoch:.1f} epochs of {epoch:.1f}"
    logger.info(
        "Device: %s; processes: %d; threads: %d; seed: %d; images per iteration: %s; "
        "iterations: %d (%s)",
        *(cfg.train.device, comm.get_world_size(), torch.get_num_threads(), cfg.train.seed),
        *(batch, cfg.train.max_iter, length),
    )


def evaluate_model(
    cfg: DictConfig,
    *,
    tta: bool = False,
    optimized: bool = False,
    exported: tuple[nn.Module, Classes] | None = None,
    runtime: Runtime | None = None,
    watch: Callable[[nn.Module], object] | None = None,
) -> dict[str, Any]:
    """Evaluate ``train.init_checkpoint``, or else the best or last of ``train.output_dir``.

    Averaged weights are used if the checkpoint has them. Detections are mapped to the data set's
    classes by name. Results go to the log and, as one line, to ``metrics.json``.

    Args:
        cfg: the prepared config.
        tta: test at the sizes of ``dataloader.tta``, on images without other augmentations.
        optimized: evaluate the faster copy that :func:`vfnet_yolof.optimize` makes of the model.
        exported: evaluate this instead of a checkpoint: what runs the file, and its classes.
        runtime: gives what detects in the place of the checkpoint's detector.
        watch: called with what will detect, before it does.

    Returns:
        Metrics as the evaluator names them, on every process.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ConfigError: the config has no test set, does not say how to test at several sizes, or the
            checkpoint has other classes than the data set.
    """
    if not has_test_set(cfg) or "evaluator" not in cfg.dataloader:
        raise ConfigError(
            "There is nothing to evaluate on: the configuration has no test set. Name one with "
            "--data PATH, or with --val-json and --val-images."
        )
    settle_seed(cfg)
    if exported is not None:
        iteration, (model, classes) = -1, exported
    else:
        model = build_model(cfg)
        iteration, classes = load_checkpoint_for_evaluation(
            model, cfg.train, dataset_classes(cfg, split="test")
        )
    values: dict[str, Any] = {}
    if runtime is not None:
        model, values["runtime"] = runtime(model, classes)
    elif optimized:
        model = optimize(model)
    if tta:
        model = build_tta(cfg, model)
    if watch is not None:
        watch(model)
    results = Evaluation(cfg, classes)(model)
    if comm.is_main_process():
        # Told from the evaluations of a training, whose file this may be.
        weights = cfg.train.init_checkpoint or best_or_last(cfg.train.output_dir)
        flat = flatten_results_dict(results)
        values = {"iteration": iteration, "evaluated": weights, **flat, **values}
        if tta:
            values["tta"] = True
        path = Path(cfg.train.output_dir) / METRICS
        append_metrics(path, values)
        headlines = [f"{name} {value:.4g}" for name, value in flat.items() if "-" not in name]
        logger.info("%s; appended to %s", ", ".join(headlines[:3]) or "No metrics", path)
    return results


def use_device(cfg: DictConfig) -> None:
    """Make ``train.device`` the current one; without CUDA the CPU, with a line in the log.

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
        logger.warning("CUDA is not available: the CPU is used")
        cfg.train.device = "cpu"
    elif index:
        if comm.get_world_size() > 1:
            raise ConfigError(f"train.device={name}: several processes need train.device=cuda.")
        if int(index) >= torch.cuda.device_count():
            raise ConfigError(f"train.device={name}: there are {torch.cuda.device_count()} GPUs.")
        torch.cuda.set_device(int(index))  # events and random states are the current device's
