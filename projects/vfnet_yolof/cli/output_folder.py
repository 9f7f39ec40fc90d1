"""Where a training or an evaluation writes: a folder that is named, or a new one of its own."""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from pathlib import Path

from detectron2.utils import comm
from omegaconf import DictConfig

from ..config.options import TRAIN_DEFAULTS, ConfigError
from ..config.read import joined_pairs
from ..config.saved import is_checkpoint
from ..engine.ending import require_writable
from ..engine.failures import together
from ..engine.run_folder import EVALUATIONS, RunFolder, RunSeries, new_folder

logger = logging.getLogger(f"detectron2.{__name__}")

_DEFAULT = Path(TRAIN_DEFAULTS["output_dir"])  # the folder of all runs that have no name


def settled_folder(cfg: DictConfig, args: argparse.Namespace, owned: ExitStack) -> RunFolder:
    """The output folder: the one that is named, else a numbered one of the configuration's.

    Args:
        cfg: changed in place; ``train.output_dir`` becomes the numbered folder.
        owned: takes that folder away again at its end, should nothing have come of it.

    Raises:
        ConfigError: there is no earlier run to resume, overwrite or evaluate.
    """
    if _names_folder(cfg, args):
        return RunFolder(cfg.train.output_dir)
    chosen: list[tuple[str, bool]] = []
    together(lambda: chosen.append(_numbered_folder(cfg, args)) if comm.is_main_process() else None)
    path, is_new = comm.all_gather(chosen)[0][0]  # the main process's
    cfg.train.output_dir = path
    folder = RunFolder(path)
    if is_new and comm.is_main_process():
        owned.callback(folder.remove_if_never_used)
    logger.info("Output folder: %s", path)
    return folder


def _names_folder(cfg: DictConfig, args: argparse.Namespace) -> bool:
    """Whether the command line names the output folder, or the config another than the default.

    The folder in a checkpoint's config is that of another run, which only ``--resume`` goes on in.
    """
    keys = [pair.partition("=")[0] for pair in joined_pairs(args.overrides)]
    if args.output_dir is not None or {"train.output_dir", "OUTPUT_DIR"} & set(keys):
        return True
    if args.run:
        return False
    if is_checkpoint(args.config_file):
        return args.resume or (args.eval_only and not cfg.train.init_checkpoint)
    return Path(str(cfg.train.output_dir)) != _DEFAULT


def _numbered_folder(cfg: DictConfig, args: argparse.Namespace) -> tuple[str, bool]:
    """The folder, and whether it was made for this run."""
    series = RunSeries(_DEFAULT, _series_name(cfg, args.config_file))
    if args.overwrite:
        raise ConfigError("--overwrite deletes the run in a folder: name that with --output.")
    if args.eval_only and args.run:
        return str(new_folder(Path(args.run) / EVALUATIONS)), True
    if args.eval_only and cfg.train.init_checkpoint:
        return str(series.new_evaluation()), True
    if not args.eval_only and not args.resume:
        return str(series.new_run()), True
    newest = series.newest_run()
    if newest is None:
        what = "evaluate: name weights, or a run's" if args.eval_only else "resume: name its"
        raise ConfigError(f"{series.folder} holds no run to {what} folder with --output.")
    return str(newest), False


def _series_name(cfg: DictConfig, config_file: str) -> str:
    """The config's name; of a checkpoint that of the runs that it is one of."""
    if not is_checkpoint(config_file):
        return Path(config_file).stem
    run = Path(str(cfg.train.output_dir))
    return run.parent.name if run.name.isdecimal() and run.parent.name else run.name


def claim(folder: RunFolder, cfg: DictConfig, args: argparse.Namespace, owned: ExitStack) -> None:
    """Make sure, before anything is written, that the output folder can be used as is asked for."""
    if args.eval_only and folder.holds_a_run() and not _has_weights_of(folder, cfg):
        raise ConfigError(
            f"{folder.folder} holds another run, whose results this evaluation of "
            f"{cfg.train.init_checkpoint} would replace. Choose another folder with --output."
        )
    if args.eval_only or not comm.is_main_process():
        require_writable(folder.folder)
        return
    owned.enter_context(folder.owned())
    if not args.resume and not args.overwrite:
        folder.require_free()


def _has_weights_of(folder: RunFolder, cfg: DictConfig) -> bool:
    """Whether what is evaluated is the run's own: one of its checkpoints, by default the best."""
    weights = cfg.train.init_checkpoint
    return not weights or folder.folder.resolve() in Path(weights).resolve().parents
