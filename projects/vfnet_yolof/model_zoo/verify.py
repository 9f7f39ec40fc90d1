"""Converted weights must reach the AP that is published for them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from ..checkpoint import load_into
from ..config.inference import default_device
from ..config.options import complete_train_options
from ..config.read import read
from ..data.datasets import register_coco_json
from ..engine.classes import check_num_classes, checkpoint_classes
from ..engine.evaluation import Evaluation
from . import converted_weights, find_row, find_source, get_config, is_published
from .table import ROWS, Pipeline

logger = logging.getLogger(f"detectron2.{__name__}")

TOLERANCE = 0.3  # AP; repetitions of a training differ by as much
SPLIT = "val2017"


class Verification(NamedTuple):
    """``ap`` was measured, ``expected`` is published; both in percent."""

    ap: float
    expected: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.ap - self.expected) <= self.tolerance + 1e-9

    def __str__(self) -> str:
        verdict = "as published" if self.passed else "NOT as published"
        return (
            f"AP {self.ap:.2f}, published {self.expected:.1f}, difference "
            f"{self.ap - self.expected:+.2f} (allowed {self.tolerance:.2f}): {verdict}"
        )


def verify(
    name: str,
    coco: Path,
    *,
    weights: str | None = None,
    expected: float | None = None,
    tolerance: float = TOLERANCE,
    device: str | None = None,
    output: Path | None = None,
) -> Verification:
    """Convert, evaluate on val2017, compare.

    Images are resized and padded as they were when the row's published file was trained; with
    another file, as the config has it.

    Args:
        name: a row of the zoo; with ``weights`` and ``expected`` any packaged config.
        coco: the folder with ``annotations/`` and ``val2017/``.
        weights: as :func:`vfnet_yolof.model_zoo.get` takes it.
        expected: AP to reach instead of the row's.
        output: folder of the detections.

    Raises:
        ValueError: nothing is published to compare with, or the data have other classes.
        KeyError, FileNotFoundError, CheckpointError: no such row, data or weights.
    """
    expected = _published(name) if expected is None else expected
    chosen = default_device(device)
    source = _source(name, weights)
    cfg = _config(name, source)
    _use_data(cfg, coco, output or Path("output") / "verify" / Path(name).stem)
    complete_train_options(cfg)
    check_num_classes(cfg, split="test")
    model: nn.Module = instantiate(cfg.model)
    logger.info("%s is evaluated on images that are %s", source, pipeline_of(cfg, model))
    content, _ = load_into(model, converted_weights(name, model, source))
    evaluation = Evaluation(cfg, checkpoint_classes(content, str(source)))
    results = evaluation(model.eval().to(chosen))
    return Verification(float(results["bbox"]["AP"]), expected, tolerance)


def pipeline_of(cfg: DictConfig, model: nn.Module) -> Pipeline:
    """How test images come to a config's model."""
    mapper = cfg.dataloader.test.mapper
    backbone: Any = model.backbone
    return Pipeline(
        interpolation=mapper.interpolation,
        divisor=backbone.size_divisibility,
        image_format=mapper.image_format,
    )


def _config(name: str, source: Path) -> DictConfig:
    """For the published file as it was trained, for any other one as the config has it."""
    if not _is_row(name):
        return read(name).cfg
    return get_config(name, trained=is_published(name, source))


def _is_row(name: str) -> bool:
    try:
        find_row(name)
    except KeyError:
        return False
    return True


def _source(name: str, weights: str | None) -> Path:
    """A file by its path for any config; else what the zoo finds for the row."""
    if weights is not None and Path(weights).is_file() and not _is_row(name):
        return Path(weights)
    return find_source(name, weights)


def _published(name: str) -> float:
    row = find_row(name)
    ap = ROWS[row].weights_val
    if ap is None:
        raise ValueError(
            f"no AP on {SPLIT} is published for {row}, only {ROWS[row].test_dev} on test-dev, "
            "whose annotations are not public; give the AP to compare with by --expected"
        )
    return ap


def _use_data(cfg: DictConfig, coco: Path, output: Path) -> None:
    coco = coco.expanduser().resolve()
    name = f"verify_{coco}"
    register_coco_json(name, coco / "annotations" / f"instances_{SPLIT}.json", coco / SPLIT)
    cfg.dataloader.test.dataset.names = name
    cfg.dataloader.test.num_workers = min(cfg.dataloader.test.num_workers, torch.get_num_threads())
    cfg.train.output_dir = str(output)
