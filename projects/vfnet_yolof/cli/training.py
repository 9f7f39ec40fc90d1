"""Training and evaluation: what each process does with the arguments of ``tools/train_net.py``."""

from __future__ import annotations

import argparse
import copy
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from ..analysis.report_run import EvaluationReport
from ..checkpoint import load_record
from ..checkpoint.rules import CheckpointError
from ..config.inference import inference_parts
from ..config.options import ConfigError
from ..config.read import ReadConfig, RunFlags, read
from ..config.saved import require_tested_alike
from ..config.yaml_files import trust_from
from ..data.loader import DataLoadingError
from ..engine.batch_size import largest_batch
from ..engine.ending import (
    EXIT_EVALUATION,
    EXIT_FAILED,
    EXIT_OUTPUT,
    EXIT_REFUSED,
    EXIT_SIGNAL,
    EvaluationFailed,
    OutputError,
    cause,
    ctrl_c_kept,
    writing,
)
from ..engine.failures import ProcessFailed, StepFailed, is_agreed, together
from ..engine.fine_tune import best_or_last
from ..engine.launch import launch
from ..engine.run import Runtime, evaluate_model, train_model, use_device
from ..engine.run_folder import RunFolder
from ..engine.run_record import save_run_record, versions
from ..inference.choice import Request, choose
from ..optimization import optimize
from ..utils import threads
from ..utils.class_names import Classes
from ..utils.quiet import keep_warnings_off_console
from .console import shorten_console
from .output_folder import claim, settled_folder
from .report import command_and_versions, told
from .train import argument_parser

EXPECTED = (
    ConfigError,
    CheckpointError,
    StepFailed,
    DataLoadingError,
    EvaluationFailed,
    FloatingPointError,
    OSError,
    OutputError,
    ProcessFailed,
)
_STATUS = {  # of all others: EXIT_REFUSED
    DataLoadingError: EXIT_FAILED,
    FloatingPointError: EXIT_FAILED,
    ProcessFailed: EXIT_FAILED,
    StepFailed: EXIT_FAILED,
    EvaluationFailed: EXIT_EVALUATION,
    OutputError: EXIT_OUTPUT,
}
_LOGGERS = ("detectron2", "fvcore", "vfnet_yolof")


def read_arguments(args: argparse.Namespace) -> ReadConfig:
    """The configuration that parsed arguments describe; errors as of :func:`.read.read`."""
    flags = RunFlags(
        data=args.data,
        split=getattr(args, "split", None),
        train_json=args.train_json,
        train_images=args.train_images,
        val_json=args.val_json,
        val_images=args.val_images,
        seed=args.seed,
        output_dir=args.output_dir,
        cpu=args.num_gpus == 0,
        auto_scale=args.auto_scale,
        small_batch=args.small_batch,
        epochs=args.epochs,
        batch=None if args.batch == "auto" else args.batch,
        eval_only=args.eval_only,
    )
    return read(args.config_file, args.overrides, flags, trust_from(args))


def main(args: argparse.Namespace) -> int:
    """Train or evaluate in as many processes as asked for; returns the exit status.

    Raises:
        ConfigError, OSError, CheckpointError: something is wrong with the arguments, the config,
            the data or a checkpoint.
        DataLoadingError, FloatingPointError: training came upon a broken image or a NaN.
        OutputError: something could not be written.
        EvaluationFailed: training is complete, but the evaluation at its end failed.
        ProcessFailed: another process of the run has ended.
        StepFailed: the model raised an exception in training.
    """
    if args.optimize and not args.eval_only:
        raise ConfigError("--optimize is for --eval-only: an optimised model cannot be trained.")
    if args.report and not args.eval_only:
        raise ConfigError("--report is for --eval-only: it is about the detections of a model.")
    _require_evaluation_alone(args)
    status = launch(
        run_process,
        (args,),
        num_gpus=args.num_gpus,
        num_processes=args.num_processes,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
    )
    return int(status or 0)


def _require_evaluation_alone(args: argparse.Namespace) -> None:
    """Other runtimes than the native one evaluate, in one process, at one size."""
    if args.runtime == "native":
        Request(args.runtime, args.measure_runtimes)
        return
    if not args.eval_only:
        raise ConfigError("--runtime is for --eval-only: training is native.")
    if args.tta or args.num_processes > 1 or args.num_machines > 1 or args.num_gpus > 1:
        raise ConfigError(
            f"--runtime {args.runtime} evaluates at one size and in one process: leave out --tta "
            "and the numbers of processes, machines and GPUs."
        )


def run_process(args: argparse.Namespace) -> int:
    """What each process does. One that :func:`launch` has started tells of mistakes itself."""
    try:
        with ctrl_c_kept():
            return _run(args)
    except EXPECTED as error:
        if multiprocessing.parent_process() is None and comm.get_world_size() == 1:
            raise
        if not is_agreed(error):
            raise SystemExit(report(error)) from None
        # All processes are here. The one that ends first would have the others ended. Only a loss
        # that is not finite has a message of its own on each.
        tells = comm.is_main_process() or isinstance(error, FloatingPointError)
        status = report(error) if tells else _status(error)
        comm.synchronize()
        raise SystemExit(status) from None


def _run(args: argparse.Namespace) -> int:
    if args.tta and not args.eval_only:
        raise ConfigError("--tta is for testing: add --eval-only.")
    if args.init_from and args.eval_only:
        raise ConfigError(
            "--init-from is for training; to evaluate weights: "
            f"train.init_checkpoint={args.init_from}"
        )
    if args.resume and args.overwrite:
        raise ConfigError("--resume continues a run and --overwrite deletes it: give one of them.")
    with _messages_kept() as messages, ExitStack() as owned:
        config = read_arguments(args)
        if args.batch == "auto" and not args.eval_only:
            args.batch = largest_batch(config.cfg)
            messages.clear()
            config = read_arguments(args)
        cfg, changes = config.cfg, config.changes
        folder = settled_folder(cfg, args, owned)
        together(lambda: claim(folder, cfg, args, owned))
        released = owned.pop_all()  # held until training ends, not only until messages are told
        for name in _LOGGERS:
            setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name=name)
        shorten_console([logging.getLogger(name) for name in _LOGGERS])
    for message in messages:
        logging.getLogger(message.name).handle(message)
    logger = logging.getLogger(f"detectron2.{__name__}")
    logger.info("; ".join(versions()))
    for change in changes:
        logger.info("Changed: %s", change)
    with released:
        if args.eval_only and not args.other_test_settings and not args.exported:
            _require_tested_alike(config)
        if args.eval_only:
            return _evaluate(config, args)
        return _train(cfg, args, changes, folder)


def _require_tested_alike(config: ReadConfig) -> None:
    train = config.cfg.train
    if weights := train.init_checkpoint or best_or_last(train.output_dir):
        record = load_record(weights)
        require_tested_alike(config.tested_as, config.source, record, weights)


def _exported(path: str, trusted: bool) -> tuple[nn.Module, Classes]:
    """What runs an exported file, and its classes."""
    from ..inference.exported import ExportedModel

    model = ExportedModel(path, trusted)
    return model, Classes(list(model.metadata.class_names), path)


def _use_processor(cfg: DictConfig, fixed: str = "") -> None:
    """The device, and as many threads as others leave free, unless ``fixed`` says why not."""
    use_device(cfg)
    alone_on_cpu = cfg.train.device == "cpu" and comm.get_world_size() == 1
    if alone_on_cpu and (said := threads.use_free_cores(fixed)):
        logging.getLogger(f"detectron2.{__name__}").warning(said)


def _evaluate(config: ReadConfig, args: argparse.Namespace) -> int:
    cfg = config.cfg
    _use_processor(cfg)
    torch.backends.cudnn.benchmark = False
    report = EvaluationReport(cfg, args.report) if args.report else None
    evaluate_model(
        cfg,
        tta=args.tta,
        optimized=args.optimize,
        exported=_exported(args.exported, args.trust_config) if args.exported else None,
        runtime=None if args.runtime == "native" else _by_runtime(config, args),
        watch=report.stopwatch.watch if report else None,
    )
    if report is not None and comm.is_main_process():
        print(told(*report.write(command_and_versions())))
    return 0


def _by_runtime(config: ReadConfig, args: argparse.Namespace) -> Runtime:
    """Puts what was asked for in the place of a detector."""
    request = Request(args.runtime, args.measure_runtimes)
    parts = inference_parts(config)
    train = config.cfg.train
    beside = Path(train.init_checkpoint or best_or_last(train.output_dir) or ".").parent

    def chosen(model: nn.Module, classes: Classes) -> tuple[nn.Module, str]:
        names = classes.names or [str(i) for i in range(int(getattr(model, "num_classes", 0)))]
        choice = choose(request, model, parts, names, None, beside)
        logging.getLogger(f"detectron2.{__name__}").info("runtime: %s", choice)
        return choice.model or optimize(model), choice.runtime

    return chosen


def _train(cfg: DictConfig, args: argparse.Namespace, changes: list[str], folder: RunFolder) -> int:
    seeded = cfg.train.seed is not None and cfg.train.seed >= 0
    _use_processor(cfg, fixed="With a seed" if seeded else "")
    torch.backends.cudnn.benchmark = cfg.train.cudnn_benchmark
    # As configured: training puts drawn seeds into the config it works with.
    configured = copy.deepcopy(cfg)

    def record() -> None:
        with writing(cfg.train.output_dir):
            if args.overwrite and comm.is_main_process():
                folder.clear()
            save_run_record(configured, changes)

    return train_model(
        cfg,
        resume=args.resume,
        init_from=args.init_from,
        config_file=args.config_file,
        scaled=args.auto_scale or args.small_batch or cfg.train.auto_scale,
        on_start=lambda: together(record),
    )


class _Kept(logging.Handler):
    """Collects copies: the formatters of other handlers change a record's name."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(copy.copy(record))


@contextmanager
def _messages_kept() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged before the config has told where the log file belongs."""
    handler = _Kept()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.handlers.insert(0, handler)
        logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
    try:
        yield handler.records
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def _log_file() -> str | None:
    """Where this process writes its messages."""
    streams = [getattr(x, "stream", None) for x in logging.getLogger("detectron2").handlers]
    names = [getattr(x, "name", None) for x in streams if x not in (sys.stdout, sys.stderr)]
    files = [name for name in names if isinstance(name, str) and os.path.isfile(name)]
    return files[-1] if files else None


def command_line(arguments: Sequence[str] | None = None) -> int:
    """``tools/train_net.py``; returns the exit status."""
    return run_told(argument_parser().parse_intermixed_args(arguments))


def run_told(args: argparse.Namespace) -> int:
    """As :func:`main`, but mistakes of the user end with one line instead of a traceback."""
    keep_warnings_off_console()
    logging.raiseExceptions = False  # a log file on a full disk is no reason for a traceback
    try:
        with ctrl_c_kept():
            return main(args)
    except EXPECTED as error:
        return report(error)
    except KeyboardInterrupt:
        print("error: stopped at once by Ctrl-C", file=sys.stderr)
        return EXIT_SIGNAL + signal.SIGINT


def report(error: Exception) -> int:
    """Print what is wrong; returns the exit status."""
    message = str(error).strip()
    if isinstance(error, DataLoadingError) and message.startswith("Caught "):
        # A worker of the loader hands its traceback on as text; the message is its last line.
        message = message.splitlines()[-1].partition(": ")[2]
    if isinstance(error, OSError) and message.startswith("[Errno"):
        message = cause(error)
    if isinstance(error, StepFailed) and (log := _log_file()):
        message += f" The traceback is in {log}."
    print(f"error: {message}", file=sys.stderr)
    return _status(error)


def _status(error: Exception) -> int:
    found = [status for kind, status in _STATUS.items() if isinstance(error, kind)]
    return found[0] if found else EXIT_REFUSED
