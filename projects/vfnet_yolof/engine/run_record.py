"""The record of a run, to repeat it: its configuration, also for yacs, and all versions."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from ..config.options import ConfigError, complete_train_options, flatten
from ..config.saved import ENTRY, config_text
from ..config.yacs import (
    COUNTERPARTS,
    build_yacs_model,
    components,
    num_classes_key,
    yacs_from_text,
)
from ..utils import __version__
from ..utils.files import write_atomically
from .checkpoints import FINAL
from .run_folder import CONFIG

logger = logging.getLogger(f"detectron2.{__name__}")


FILE_NAME = "config_yacs.yaml"

# What is in the file in another form.
_TRANSLATED = (
    *("model.yaml", "train.init_checkpoint"),
    *("lr_multiplier.warmup_length", "lr_multiplier.scheduler.milestones"),
    "lr_multiplier.scheduler.num_updates",
)
_HEAD = """\
# This run as a yacs config for DefaultPredictor and other tools that use Detectron2's keys; to
# train again, take config.yaml. MODEL.WEIGHTS is what the run leaves at its end.
"""
_LEFT_OUT = "# Settings of the run that such a file has no place for:\n"


def save_run_record(cfg: DictConfig, changes: list[str]) -> None:
    """Write ``config.yaml``, which ``--config-file`` takes again, and ``versions.txt``.

    A config that came from yacs is written as ``config_yacs.yaml``, too, for other tools.

    Args:
        cfg: the prepared config.
        changes: overrides of the command line, for ``versions.txt``.

    Raises:
        ConfigError: the config cannot be saved as text.
    """
    if not comm.is_main_process():
        return
    folder = Path(cfg.train.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CONFIG
    content = config_text(cfg).encode()
    write_atomically(path, lambda file: file.write(content))
    write_yacs_record(cfg)
    text = "".join(f"{line}\n" for line in [*versions(), "", "overrides:", *changes])
    write_atomically(folder / "versions.txt", lambda file: file.write(text.encode()))
    logger.info("Config saved to %s", path)


def run_record(cfg: DictConfig) -> dict[str, Any]:
    """What makes a checkpoint enough by itself: its configuration as text, and all versions.

    A configuration that cannot be written as text is left out, with a warning.
    """
    try:
        return {ENTRY: config_text(cfg), "versions": versions()}
    except ConfigError as error:
        logger.warning("Checkpoints will need their config beside them. %s", error)
        return {"versions": versions()}


def versions() -> list[str]:
    """Versions of what a result depends on, one per line."""
    lines = [
        f"vfnet_yolof {__version__}",
        f"detectron2 {detectron2.__version__}",
        f"torch {torch.__version__}, CUDA {torch.version.cuda}",
        f"python {platform.python_version()}",
    ]
    if torch.cuda.is_available():
        lines.append(f"device {torch.cuda.get_device_name()}")
    commit = _git("rev-parse", "HEAD")
    if commit:
        changed = "with local changes" if _git("status", "--porcelain", "-uno") else "clean"
        lines.append(f"git {commit}, {changed}")
    return lines


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def write_yacs_record(cfg: DictConfig) -> None:
    """Write ``config_yacs.yaml`` into the output folder of a config that came from a yacs file.

    For other configs, delete the file of an earlier run.
    """
    path = Path(cfg.train.output_dir) / FILE_NAME
    if _comparable(cfg.model).get("_target_") is not build_yacs_model:
        path.unlink(missing_ok=True)
        return
    text = yacs_record(cfg).encode()
    write_atomically(path, lambda file: file.write(text))


def yacs_record(cfg: DictConfig) -> str:
    """Text of a yacs file with the settings of ``cfg``, which :func:`components` made.

    Settings that yacs has no key for are listed in comments at its top.
    """
    yacs = yacs_from_text(cfg.model.yaml)
    values = {key: OmegaConf.select(cfg, name) for key, name in COUNTERPARTS.items()}
    for key in ("DATASETS.TRAIN", "DATASETS.TEST"):
        names = values[key] or ()
        values[key] = (names,) if isinstance(names, str) else tuple(names)
    # The second key is where tools look that know Detectron2's own detectors only.
    for key in (num_classes_key(yacs), "MODEL.ROI_HEADS.NUM_CLASSES"):
        values[key] = cfg.model.num_classes
    values["MODEL.WEIGHTS"] = os.path.abspath(f"{cfg.train.output_dir}/{FINAL}.pth")
    values |= _schedule_keys(cfg)
    for key, value in values.items():
        if value is not None:
            yacs.merge_from_list([key, value])
    lines = "".join(f"#   {line}\n" for line in _left_out(cfg, yacs))
    return _HEAD + (_LEFT_OUT + lines if lines else "") + yacs.dump()


def _schedule_keys(cfg: DictConfig) -> dict[str, Any]:
    """Warm-up and milestones, which the config has as shares of the run, in iterations."""
    schedule, length = cfg.lr_multiplier, cfg.train.max_iter
    keys: dict[str, Any] = {"SOLVER.WARMUP_ITERS": round(schedule.warmup_length * length)}
    if "milestones" in schedule.scheduler:
        share = length / schedule.scheduler.num_updates
        keys["SOLVER.STEPS"] = tuple(round(x * share) for x in schedule.scheduler.milestones)
    return keys


def _left_out(cfg: DictConfig, yacs: CfgNode) -> list[str]:
    """``key: value`` of each setting that a run with ``yacs`` would have otherwise."""
    from_yacs = components(yacs)
    complete_train_options(from_yacs)
    before, after = flatten(_comparable(from_yacs)), flatten(_comparable(cfg))
    return [
        f"{key}: {after.get(key, 'removed')}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key) and key not in _TRANSLATED
    ]


def _comparable(node: Any) -> Any:
    """Plain containers with references resolved, and classes in place of their names."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, dict):
        node = {key: _comparable(value) for key, value in node.items()}
        if isinstance(node.get("_target_"), str):
            node["_target_"] = locate(node["_target_"])
        return node
    return [_comparable(x) for x in node] if isinstance(node, list | tuple) else node
