"""The report on an evaluation: its detections, and what the model costs and how fast it was."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config.options import ConfigError
from ..config.parts import built_model
from ..engine.classes import dataset_names
from ..engine.ending import require_writable
from ..engine.fine_tune import best_or_last
from ..evaluation.results_file import read_results
from .cost import build_without_memory, count
from .report import Options, Report, analyse, write_report
from .scored import truth_of_dataset

RESULTS = "coco_instances_results.json"


class Stopwatch:
    """Times a model's batches in evaluation; the first one, which warms up, does not count.

    Attributes:
        images, seconds: of all batches but the first. size: (height, width) of the first image.
    """

    def __init__(self) -> None:
        self.images, self.seconds, self._batches, self._start = 0, 0.0, 0, 0.0
        self.size: tuple[int, int] | None = None
        self.device = "cpu"

    def watch(self, model: nn.Module) -> None:
        """Time every call of ``model``, which takes Detectron2's input dicts."""
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end)

    def _begin(self, model: nn.Module, inputs: tuple[Sequence[dict[str, Any]], ...]) -> None:
        if self.size is None:
            height, width = inputs[0][0]["image"].shape[-2:]
            self.size = (int(height), int(width))
            self.device = next((p.device.type for p in model.parameters()), "cpu")
        self._start = self._now()

    def _end(self, model: nn.Module, inputs: tuple[Sequence[Any], ...], _: object) -> None:
        self._batches += 1
        if self._batches > 1:
            self.seconds += self._now() - self._start
            self.images += len(inputs[0])

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()  # else only the start of the work would be timed
        return time.perf_counter()

    def told(self) -> list[tuple[str, str]]:
        """As rows of the report."""
        if not self.images:
            return []
        each = self.seconds / self.images
        device = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        threads = "" if self.device == "cuda" else f", {torch.get_num_threads()} threads"
        text = f"{1000 * each:.1f} ms an image ({1 / each:.1f} images/s) in this process on "
        text += f"{device}{threads}; {self.images} images, with NMS, without reading them"
        return [("speed", text)]


class EvaluationReport:
    """To be made before an evaluation, so that what is wrong with the request is told at once."""

    def __init__(self, cfg: DictConfig, folder: str) -> None:
        """Raises ConfigError, OutputError or ValueError where there could be no report.

        Args:
            cfg: the prepared config of the evaluation. folder: of the report.
        """
        written = OmegaConf.select(cfg, "dataloader.evaluator.output_dir")
        names = dataset_names(cfg, "test")
        if not written or len(names) != 1:
            raise ConfigError(
                "--report reads the detections that the evaluator writes: it needs "
                f"dataloader.evaluator.output_dir and one test set, not {written!r} and {names}."
            )
        require_writable(folder)
        self._cfg, self._folder, self._results = cfg, Path(folder), Path(written) / RESULTS
        self._truth = truth_of_dataset(names[0])
        self._started = time.time()
        self.stopwatch = Stopwatch()

    def write(self, facts: Sequence[tuple[str, str]]) -> tuple[Report, Path]:
        """Read the detections and write the report; returns its content and the page.

        Raises:
            ConfigError: the evaluator wrote no detections.
            ValueError, FileWriteError: they cannot be used, or a file cannot be written.
        """
        if not self._results.is_file() or self._results.stat().st_mtime < self._started - 1:
            raise ConfigError(f"--report: the evaluator has not written {self._results}.")
        truth, train = self._truth, self._cfg.train
        found = read_results(self._results, truth.image_ids, truth.category_ids)
        max_dets = OmegaConf.select(self._cfg, "dataloader.evaluator.max_dets_per_image")
        weights = train.init_checkpoint or best_or_last(train.output_dir)
        rows = [("weights", str(weights)), ("results", str(self._results))]
        rows += [*self._cost(), *self.stopwatch.told(), *facts]
        report = analyse(truth, found, Options(max_dets=max_dets or 100), rows)
        return report, write_report(report, self._folder)

    def _cost(self) -> list[tuple[str, str]]:
        size = self.stopwatch.size
        if size is None:
            return []
        try:
            model = build_without_memory(lambda: built_model(self._cfg.model, "the config"))
            cost = count(model, size)
        except TypeError:  # no detector whose parts can be told apart
            return []
        text = f"{cost.parameters / 1e6:.2f} million parameters, {cost.multiply_adds / 1e9:.1f} "
        text += f"thousand million multiply-adds for an image of {size[1]} x {size[0]} px"
        return [("cost", text)]
