"""How a run went: ``summary.md`` and ``summary.json``, curves, and drawn validation images."""

from __future__ import annotations

import json
import logging
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from ..checkpoint import find_weights, load_checkpoint
from ..checkpoint.fitting import load_whole
from ..config.yaml_files import Trust, load_lazy_yaml
from ..data.loader import mapped_dataset
from ..drawing.curves import draw_curves
from ..utils.files import write_atomically
from .checkpoints import AVERAGE, BEST, CheckpointFiles
from .classes import dataset_classes, dataset_names
from .ending import OutputError, writing
from .evaluation import Evaluation
from .evaluation_hooks import BestCheckpointHook
from .examples import draw_examples
from .fine_tune import best_or_last
from .measured import Measured, read_metrics
from .run_folder import CONFIG
from .run_record import versions
from .summary_text import as_markdown, on_console
from .swa import EMAHook
from .trainer import Trainer
from .writers import METRICS

logger = logging.getLogger(f"detectron2.{__name__}")

_ADVICE = "--data with a validation set, --split 0.2, or --val-json and --val-images give one."
NO_VALIDATION = (  # when a run begins
    f"There is no validation set, so there will be no AP and no best checkpoint. {_ADVICE}"
)
_SECONDS_AFTER_A_SIGNAL = 5.0  # schedulers kill what has not ended soon


@dataclass(frozen=True)
class Training:
    """A training, and what is needed to tell how it went.

    Attributes:
        cfg, trainer, files, evaluation: of the run; the trainer's weights may be changed.
        config_file: its name, or "".
        began: when the session began, of ``time.monotonic``.
    """

    cfg: DictConfig
    trainer: Trainer
    files: CheckpointFiles
    evaluation: Evaluation
    config_file: str
    began: float = field(default_factory=time.monotonic)


def write_summary(run: Training) -> None:
    """Write the summary into the run's folder and log a short form of it.

    Where a part of it fails for a reason of its own, the log says so and the rest is written.

    Raises:
        OutputError: something could not be written.
    """
    folder = run.files.folder
    measured = read_metrics(folder / METRICS, run.trainer.iterations_done)
    facts = _facts(run, measured)
    facts["curves"] = _attempt("curves", partial(_write_curves, folder, measured, facts)) or []
    if run.evaluation.has_images:
        drawn = _attempt("validation images", partial(_write_examples, run))
        facts["validation_images"] = drawn or 0
    text = json.dumps(_strict(facts), indent=1, ensure_ascii=False) + "\n"
    _write(folder / "summary.json", text)
    _write(folder / "summary.md", as_markdown(facts))
    logger.info("%s", on_console(facts))


def _attempt(what: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OutputError:
        raise
    except Exception as error:
        logger.error("The summary has no %s: %s", what, error, exc_info=True)
        return None


def _write(path: Path, text: str) -> None:
    with writing(path):
        write_atomically(path, lambda file: file.write(text.encode()))


def _strict(value: Any) -> Any:
    """NaN and infinity, which JSON does not have, become null."""
    if isinstance(value, dict):
        return {key: _strict(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_strict(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _facts(run: Training, measured: Measured) -> dict[str, Any]:
    cfg, trainer = run.cfg, run.trainer
    done = trainer.iterations_done
    per_epoch = getattr(trainer.data_loader, "iterations_per_epoch", None)
    facts: dict[str, Any] = {
        "run": str(run.files.folder),
        "config": run.config_file,
        "ended": _how_it_ended(trainer),
        "iterations": done,
        "max_iter": int(cfg.train.max_iter),
        "epochs": done / per_epoch if per_epoch else None,
        "metric": str(cfg.train.best_checkpoint.metric),
        "best": _best(run, measured, per_epoch),
        "last": _last(run, measured, per_epoch),
        "no_ap": "",
        "failed_evaluations": trainer.evaluation_problem,
        "speed": _speed(run, measured),
        "model": {
            "parameters": sum(p.numel() for p in trainer.bare_model.parameters()),
            "weights": "moving averages (EMA)" if trainer.hooks_of(EMAHook) else "",
        },
        "data": _attempt("counts of the data", partial(_data, run)) or {},
        "versions": versions(),
        "commands": _commands(run),
    }
    if facts["last"] is None and run.evaluation.has_images:
        facts["no_ap"] = f"{facts['metric']} was not measured."
    elif facts["last"] is None:
        facts["no_ap"] = f"There is no validation set, so no AP and no best checkpoint. {_ADVICE}"
    facts["per_class"] = _per_class(facts, measured)
    swa = measured.series(f"swa/{facts['metric']}")[1]
    facts["averaged"] = {"value": swa[-1], "checkpoint": f"{AVERAGE}.pth"} if swa else None
    return facts


def _how_it_ended(trainer: Trainer) -> str:
    if trainer.interrupted:
        return "stopped"
    return trainer.stop_reason or "finished"


def _evaluated(
    values: dict[str, float], metric: str, iteration: int, per_epoch: float | None
) -> dict[str, Any]:
    return {
        "value": values.get(metric),
        "AP": values.get("bbox/AP"),
        "AP50": values.get("bbox/AP50"),
        "iteration": iteration,
        "epoch": (iteration + 1) / per_epoch if per_epoch else None,
    }


def _best(run: Training, measured: Measured, per_epoch: float | None) -> dict[str, Any] | None:
    for hook in run.trainer.hooks_of(BestCheckpointHook):
        if hook.best is not None:
            values = measured.evaluation_at(hook.best_iteration, hook.metric, hook.best)
            found = _evaluated(values, hook.metric, hook.best_iteration, per_epoch)
            return {**found, "value": hook.best, "checkpoint": f"{BEST}.pth"}
    return None


def _last(run: Training, measured: Measured, per_epoch: float | None) -> dict[str, Any] | None:
    metric = str(run.cfg.train.best_checkpoint.metric)
    iterations, _ = measured.series(metric)
    if not iterations:
        return None
    return _evaluated(measured.evaluations[iterations[-1]], metric, iterations[-1], per_epoch)


def _speed(run: Training, measured: Measured) -> dict[str, Any]:
    batch = getattr(run.trainer.data_loader, "total_batch_size", None)
    done = max(measured.seconds, default=-1) + 1
    seconds = measured.training_seconds
    per_iteration = seconds / done if done else None
    return {
        "session_seconds": time.monotonic() - run.began,
        "first_iteration_of_session": run.trainer.start_iter,
        "training_seconds": seconds if done else None,
        "seconds_per_iteration": per_iteration,
        "images_per_second": batch / per_iteration if batch and per_iteration else None,
        "device": _device(run.cfg.train.device),
        "peak_memory_mib": _peak_memory(run.cfg.train.device),
    }


def _device(name: str) -> str:
    return torch.cuda.get_device_name() if name.startswith("cuda") else "CPU"


def _peak_memory(device: str) -> float | None:
    """MiB: the GPU's that tensors took, or without one this process's."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _data(run: Training) -> dict[str, Any]:
    """Names and counts by split; boxes by class name."""
    loaders = {"train": run.trainer.data_loader}
    if run.evaluation.has_images:
        loaders["test"] = run.evaluation.loader
    data: dict[str, Any] = {"classes": list(dataset_classes(run.cfg).names)}
    for split, loader in loaders.items():
        dataset = mapped_dataset(loader)
        if dataset is None:
            continue
        names = dataset_classes(run.cfg, split).names
        boxes = dataset.boxes_of_classes()
        data["val" if split == "test" else split] = {
            "names": _names(run.cfg, split),
            "images": len(dataset),
            "boxes": boxes.total(),
            "boxes_of_classes": {names[i]: boxes[i] for i in range(len(names))},
        }
    return data


def _names(cfg: DictConfig, split: str) -> list[str]:
    """Own data by what was named on the command line, others by their registered names."""
    own = cfg.train.data
    given = own.path or (own.val_json if split == "test" else own.train_json)
    return [given] if given else dataset_names(cfg, split)


def _per_class(facts: dict[str, Any], measured: Measured) -> list[dict[str, Any]]:
    """A row for each class, of the best evaluation, else of the last."""
    chosen = facts["best"] or facts["last"]
    values: dict[str, float] = {}
    if chosen is not None:
        values = measured.evaluation_at(chosen["iteration"], facts["metric"], chosen["value"])
    data = facts["data"]
    boxes = {split: data.get(split, {}).get("boxes_of_classes", {}) for split in ("train", "val")}
    return [
        {
            "class": name,
            "train_boxes": boxes["train"].get(name),
            "val_boxes": boxes["val"].get(name),
            "AP": values.get(f"bbox/AP-{name}"),
            "AP50": values.get(f"bbox/AP50-{name}"),
        }
        for name in data.get("classes", ())
    ]


def _commands(run: Training) -> dict[str, str]:
    """What to do next, as a shell takes it; without weights there is nothing to predict with."""
    folder = run.files.folder
    trust = _needed_trust(folder / CONFIG)
    weights = best_or_last(str(folder))
    longer = [] if run.trainer.interrupted else [f"train.max_iter={2 * run.cfg.train.max_iter}"]
    commands: dict[str, Sequence[str]] = {}
    if weights:
        commands["predict"] = ["predict", weights, "images/", "--output", "predicted", *trust]
    if weights and run.evaluation.has_images:
        commands["evaluate"] = ["evaluate", str(folder), *trust]
    commands["continue"] = ["train", str(folder), "--resume", *longer, *trust]
    return {name: shlex.join(["vfnet-yolof", *words]) for name, words in commands.items()}


def _needed_trust(config: Path) -> list[str]:
    """The option without which the run's own config would be refused, for parts of a user's."""
    try:
        load_lazy_yaml(config, Trust())
    except (OSError, ValueError):
        return ["--trust-config"]
    return []


def _write_curves(folder: Path, measured: Measured, facts: dict[str, Any]) -> list[str]:
    metric = facts["metric"]
    names = dict.fromkeys(("bbox/AP", "bbox/AP50", "bbox/AP75", metric, f"swa/{metric}"))
    evaluated = {name: measured.series(name) for name in names if "loss" not in name}
    is_ap = metric.rpartition("/")[2].startswith("AP")
    files = {
        "losses.png": (dict(sorted(measured.losses.items(), key=_sum_first)), "loss"),
        "ap.png": ({n: c for n, c in evaluated.items() if c[0]}, "AP in %" if is_ap else metric),
    }
    written = []
    for name, (curves, label) in files.items():
        (folder / name).unlink(missing_ok=True)  # of an earlier session
        if curves:
            marked = [n for n in curves if "/" in n]
            draw = partial(draw_curves, curves=curves, y_label=label, marked=marked)
            with writing(folder / name):
                write_atomically(folder / name, draw)
            written.append(name)
    return written


def _sum_first(item: tuple[str, Any]) -> tuple[bool, str]:
    return item[0] != "total_loss", item[0]


def _write_examples(run: Training) -> int:
    """Drawn with the best weights; without any with those that would be evaluated next."""
    names = dataset_classes(run.cfg, "test").names
    model = _best_model(run)
    seconds = _SECONDS_AFTER_A_SIGNAL if run.trainer.interrupted else math.inf
    folder = run.files.folder / "validation"
    return draw_examples(model, run.evaluation, names, folder, seconds=seconds)


def _best_model(run: Training) -> nn.Module:
    model = run.trainer.bare_model
    path = run.files.path(BEST)
    hooks = run.trainer.hooks_of(BestCheckpointHook)
    if path.is_file() and any(hook.best is not None for hook in hooks):
        load_whole(model, find_weights(load_checkpoint(path)).tensors)
        return model
    averages = run.trainer.hooks_of(EMAHook)
    return averages[0].module if averages else model
