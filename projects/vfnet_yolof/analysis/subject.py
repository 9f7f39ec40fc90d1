"""A trained detector and its test images, as studies and figures look at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from detectron2.structures import Instances
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..checkpoint import load_record
from ..config.inference import default_device
from ..config.options import ConfigError
from ..config.own_data import has_test_set
from ..config.read import RunFlags, read
from ..config.saved import require_tested_alike
from ..config.yaml_files import Trust
from ..engine.build import build_model
from ..engine.classes import dataset_classes, dataset_names
from ..engine.evaluation import Evaluation
from ..engine.fine_tune import load_checkpoint_for_evaluation
from ..engine.named_model import named_model
from ..engine.run import settle_seed, use_device
from ..modeling.meta_arch.base import OneStageDetector
from ..runtime import is_exported
from ..utils.class_names import Classes


@dataclass(frozen=True)
class Subject:
    """A trained detector with its test data.

    Attributes:
        name: as it was named. weights: the checkpoint.
        cfg: the prepared config. model: in evaluation mode, on ``cfg.train.device``.
        classes: the model's, as its checkpoint names them.
        images: how many of the test images are looked at, the first ones; None for all.
    """

    name: str
    weights: str
    cfg: DictConfig
    model: OneStageDetector
    classes: Classes
    images: int | None = None

    @property
    def dataset(self) -> str:
        """The registered name of the test set."""
        return dataset_names(self.cfg, "test")[0]

    @cached_property
    def class_lookup(self) -> list[int]:
        """For each class of the model its index in the test set.

        Raises:
            ConfigError: they have different classes.
        """
        found = Evaluation(self.cfg, self.classes).class_lookup
        return list(range(self.model.num_classes)) if found is None else found

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """The test images, each alone, so that no other one pads it; Detectron2's input dicts.

        ``instances`` has the ground truth without crowd regions: ``gt_boxes`` in pixels of
        ``image``, ``gt_classes`` by the model's numbers, both on the model's device.
        """
        own = torch.empty(len(self.class_lookup), dtype=torch.int64)
        own[torch.tensor(self.class_lookup)] = torch.arange(len(own))
        loader = Evaluation(self.cfg, self.classes).loader_with_ground_truth()
        inputs = (one for batch in loader for one in batch)
        for one in islice(inputs, self.images):
            truth: Instances = one["instances"]
            truth.gt_classes = own[truth.gt_classes]
            yield [{**one, "instances": truth.to(self.model.device)}]


def open_subject(
    name: str,
    weights: str | None,
    changes: Sequence[str],
    flags: RunFlags,
    *,
    device: str | None = None,
    images: int | None = None,
    trust: Trust | None = None,
    other_test_settings: bool = False,
) -> Subject:
    """Read, build and load what MODEL stands for, as ``vfnet-yolof evaluate`` does.

    Args:
        name: MODEL. weights: a checkpoint instead of the model's own.
        changes: ``key=value``. flags: its data. device: None for a GPU if there is one.
        images: see :class:`Subject`.
        trust, other_test_settings: as of the commands.

    Raises:
        ConfigError, FileNotFoundError, CheckpointError, ValueError: something is wrong with the
            names, the config, the data or the weights; the message says what to do.
    """
    if is_exported(name):
        raise ConfigError(
            f"{name} is an exported detector, whose inside cannot be looked at: name the "
            "checkpoint that it was made of."
        )
    if images is not None and images < 1:
        raise ConfigError(f"--images {images}: give 1 or more.")
    model = named_model(name)
    config = read(model.config, changes, flags, trust)
    cfg = config.cfg
    path = model.weights(weights) or cfg.train.init_checkpoint
    if not path:
        raise ConfigError(f"{name} has no weights: name a checkpoint with --weights FILE.")
    _require_one_test_set(cfg, name)
    cfg.train.init_checkpoint = str(path)
    if not other_test_settings:
        require_tested_alike(config.tested_as, config.source, load_record(path), path)
    cfg.train.device = str(default_device(device))
    use_device(cfg)
    settle_seed(cfg)
    detector = _detector(build_model(cfg), name)
    found = load_checkpoint_for_evaluation(detector, cfg.train, dataset_classes(cfg, split="test"))
    return Subject(name, str(path), cfg, detector.eval(), found.classes, images)


def _require_one_test_set(cfg: DictConfig, name: str) -> None:
    if not has_test_set(cfg):
        raise ConfigError(
            f"{name} has no test images: name some with --data PATH, or with --val-json and "
            "--val-images."
        )
    if len(names := dataset_names(cfg, "test")) != 1:
        raise ConfigError(f"dataloader.test.dataset.names must be one data set, not {names}.")
    if OmegaConf.select(cfg, "dataloader.test.mapper.is_train") is None:
        raise ConfigError(
            "dataloader.test.mapper has no is_train, so its images come without their boxes: use "
            "DetectionMapper, as the packaged configs do."
        )


def _detector(model: nn.Module, name: str) -> OneStageDetector:
    if not isinstance(model, OneStageDetector):
        raise ConfigError(
            f"{name} is a {type(model).__name__}, none of this project's detectors, which this "
            "looks into."
        )
    return model
