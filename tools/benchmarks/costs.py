"""What detectors cost side by side: a training step, inference, memory, parameters, multiply-adds.

As YOLOF's paper compares itself with RetinaNet+ (tables 1 and 6) and VFNet's with ATSS (table 4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from tabulate import tabulate
from vfnet_yolof.analysis import build_without_memory, count
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.read import read
from vfnet_yolof.optimization import optimize

from .measures import Report, Settings, model_and_batch, train_step, without_grad
from .memory import in_own_process, peak_resident_mib
from .models import build_model, pictures
from .timing import Run

_STEPS = 2  # of a training whose memory is measured: the first one makes the optimizer's state


class Trained(NamedTuple):
    """A config, and how many images a training step of it has."""

    config: str
    batch: int

    @property
    def label(self) -> str:
        return f"{self.config}, {self.batch} images"


def detectors(configs: Sequence[str], batches: Sequence[int]) -> list[Trained]:
    """Each config with its number of images.

    Args:
        batches: one number for all configs, or one for each.

    Raises:
        ValueError: another count of numbers, a number below 1, or the same twice.
    """
    if len(batches) not in (1, len(configs)):
        raise ValueError(
            f"--batch has {len(batches)} numbers for {len(configs)} configs: give one for all, or "
            "one for each"
        )
    if min(batches) < 1:
        raise ValueError(f"--batch {min(batches)}: a step needs at least one image")
    numbers = list(batches) * (len(configs) if len(batches) == 1 else 1)
    found = [Trained(*pair) for pair in zip(configs, numbers, strict=True)]
    if twice := [x.label for x in found if found.count(x) > 1]:
        raise ValueError(f"{twice[0]}: named twice")
    return found


def costs(configs: Sequence[str], batches: Sequence[int], settings: Settings) -> list[Report]:
    """Training steps in turn, then inference of one image in turn, eager and optimised.

    The first report's notes have, under ``detectors``, everything that is measured once for each.

    Raises:
        ValueError: as of :func:`detectors`; a config that cannot be read, or is no detector whose
            parts can be told apart.
    """
    chosen = detectors(configs, batches)
    notes = {"detectors": {x.label: _measured_once(x, settings) for x in chosen}}
    return [
        _training_steps(chosen, settings, notes),
        *_inference(list(dict.fromkeys(x.config for x in chosen)), settings),
    ]


def _training_steps(chosen: list[Trained], settings: Settings, notes: dict[str, Any]) -> Report:
    variants: dict[str, Run] = {}
    for one in chosen:
        model, inputs = _training_batch(one, settings)
        variants[one.label] = train_step(model, inputs)
    return Report("training step", settings.compare(variants), notes)


def _inference(configs: list[str], settings: Settings) -> list[Report]:
    eager: dict[str, Run] = {}
    fast: dict[str, Run] = {}
    inputs = pictures(1, settings.size)
    for config in configs:
        model = build_model(config, inputs).to(settings.device)
        optimised = optimize(model)
        eager[config] = without_grad(lambda model=model: model(inputs))
        fast[config] = without_grad(lambda optimised=optimised: optimised(inputs))
    return [
        Report("inference of one image, eager", settings.compare(eager)),
        Report("inference of one image, optimised", settings.compare(fast)),
    ]


def _training_batch(
    one: Trained, settings: Settings
) -> tuple[torch.nn.Module, list[dict[str, Any]]]:
    settings = dataclasses.replace(settings, batch=one.batch)
    return model_and_batch(one.config, settings, settings.boxes)


def _measured_once(one: Trained, settings: Settings) -> dict[str, Any]:
    """Parameters, multiply-adds of an image, memory of training, images of the schedule."""
    try:
        build = read_inference_config(one.config).build_model
        cost = count(build_without_memory(build), settings.size)
    except TypeError as error:
        raise ValueError(f"{one.config}: {error}") from error
    return {
        **one._asdict(),
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "training_mib": training_memory(one, settings),
        "schedule_images": _schedule_images(one.config),
    }


def _schedule_images(config: str) -> int | None:
    """How many images a whole training sees, with repetitions; None where it is not said."""
    cfg = read(config).cfg
    iterations = OmegaConf.select(cfg, "train.max_iter")
    batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    return iterations * batch if iterations and batch else None


def training_memory(one: Trained, settings: Settings) -> float:
    """Peak MiB of a training in a process of its own: weights, their gradients, the optimizer's
    state, activations.

    On a GPU what tensors take at most there, as Detectron2's log tells it. On the CPU what the
    training adds to the resident memory of a process that has imported everything.

    Raises:
        ValueError: the process has died, or this system does not tell.
    """
    return in_own_process(_train_alone, one, settings, torch.get_num_threads())


def _train_alone(one: Trained, settings: Settings, threads: int) -> float:
    torch.set_num_threads(threads)
    device = torch.device(settings.device)
    before = 0.0 if device.type == "cuda" else peak_resident_mib()
    model, inputs = _training_batch(one, settings)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step = train_step(model, inputs)
    for _ in range(_STEPS):
        step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_resident_mib() - before


def cost_table(reports: Sequence[Report]) -> str:
    """Markdown, a line for each detector, of what :func:`costs` gives."""
    training, eager, fast = (report.comparison.timings for report in reports)
    rows = []
    for label, once in reports[0].notes["detectors"].items():
        config, schedule = once["config"], once["schedule_images"]
        each = training[label].median / once["batch"]
        hours = "" if schedule is None else f"{schedule * each / 3600:.1f}"
        rows.append(
            [
                label,
                f"{once['parameters'] / 1e6:.2f}",
                f"{once['multiply_adds'] / 1e9:.1f}",
                f"{once['training_mib']:.0f}",
                f"{training[label].median:.3f}",
                f"{1e3 * each:.1f}",
                hours,
                f"{1e3 * eager[config].median:.1f}",
                f"{1e3 * fast[config].median:.1f}",
            ]
        )
    headers = [
        "detector, images of a step",
        "parameters (M)",
        "multiply-adds (G)",
        "training memory (MiB)",
        "step (s)",
        "step, an image (ms)",
        "its schedule, extrapolated (h)",
        "inference, eager (ms)",
        "optimised (ms)",
    ]
    return tabulate(rows, headers, "pipe", disable_numparse=True, colalign=["left"] + ["right"] * 8)
