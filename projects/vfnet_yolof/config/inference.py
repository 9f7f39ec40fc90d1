"""What inference needs from a configuration, whether LazyConfig or yacs."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import META_ARCH_REGISTRY
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .overrides import apply_overrides
from .packaged import find_config, is_yacs_file, load_config
from .parts import built, built_model, config_errors
from .yacs import apply_yacs_overrides, load_yacs
from .yaml_files import Trust

Config = str | os.PathLike[str] | DictConfig | CfgNode


@dataclass(frozen=True)
class InferenceConfig:
    """``build_model`` makes the model on the CPU, with random weights.

    ``augmentations``: those of the test images. ``interpolation``: of their resizing, "pil" or
    "opencv". ``image_format``: the model's channel order, "RGB" or "BGR". ``weights``: the
    checkpoint that the configuration names, or "". ``dataset_name``: of the test set, for class
    names, or None.
    """

    build_model: Callable[[], nn.Module]
    augmentations: T.AugmentationList
    interpolation: str
    image_format: str
    weights: str
    dataset_name: str | None
    name: str


def read_inference_config(
    config: Config, overrides: Sequence[str] = (), trust: Trust | None = None
) -> InferenceConfig:
    """Read a file (``.py``, ``.yaml``; packaged ones by name) or take a loaded configuration.

    ``overrides``: ``key=value`` strings. A given object is not changed by them. ``trust``: what a
    YAML file may call, see :class:`.yaml_files.Trust`; a given object is the caller's own.
    Raises :class:`FileNotFoundError`, or :class:`ValueError` naming the missing or unknown key.
    """
    name = "the given configuration"
    if isinstance(config, str | os.PathLike):
        name = find_config(config)
        yacs = is_yacs_file(name)
        config = load_yacs(name, trust=trust) if yacs else load_config(name, trust)
    if isinstance(config, CfgNode):
        return _from_yacs(config.clone(), overrides, name)
    if isinstance(config, DictConfig):
        with config_errors(name):
            return _from_lazy(copy.deepcopy(config), overrides, name)
    raise TypeError(
        f"config must be a file, a LazyConfig or a CfgNode, not {type(config).__name__}"
    )


def _from_yacs(cfg: CfgNode, overrides: Sequence[str], name: str) -> InferenceConfig:
    apply_yacs_overrides(cfg, overrides)
    cfg.MODEL.DEVICE = "cpu"
    datasets = cfg.DATASETS.TEST
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    return InferenceConfig(
        build_model=lambda: _yacs_model(cfg, name),
        augmentations=T.AugmentationList([resize] if cfg.INPUT.MIN_SIZE_TEST > 0 else []),
        interpolation=cfg.INPUT.get("INTERPOLATION", "pil"),
        image_format=_checked_format(cfg.INPUT.FORMAT, "INPUT.FORMAT", name),
        weights=cfg.MODEL.WEIGHTS,
        dataset_name=datasets[0] if datasets else None,
        name=name,
    )


def _yacs_model(cfg: CfgNode, name: str) -> nn.Module:
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture not in META_ARCH_REGISTRY:
        raise ValueError(f"{name}: MODEL.META_ARCHITECTURE {architecture!r} is not known")
    return META_ARCH_REGISTRY.get(architecture)(cfg)


def _from_lazy(cfg: DictConfig, overrides: Sequence[str], name: str) -> InferenceConfig:
    apply_overrides(cfg, overrides)
    for key in ("model", "dataloader.test.mapper.augmentations"):
        if OmegaConf.select(cfg, key) is None:
            raise ValueError(f"{name}: has no {key}, which inference needs")
    format_key = "dataloader.train.mapper.image_format"
    if OmegaConf.select(cfg, format_key) is None:
        format_key = "dataloader.test.mapper.image_format"
    names = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    key = "dataloader.test.mapper.augmentations"
    augmentations = built(f"{name}: {key}", OmegaConf.select(cfg, key))
    return InferenceConfig(
        build_model=lambda: built_model(cfg.model, name),
        augmentations=T.AugmentationList(list(augmentations)),
        interpolation=OmegaConf.select(cfg, "dataloader.test.mapper.interpolation") or "pil",
        image_format=_checked_format(OmegaConf.select(cfg, format_key), format_key, name),
        weights=OmegaConf.select(cfg, "train.init_checkpoint") or "",
        dataset_name=names if isinstance(names, str) or not names else names[0],
        name=name,
    )


def _checked_format(image_format: object, key: str, name: str) -> str:
    if image_format not in ("RGB", "BGR"):
        raise ValueError(f"{name}: {key} must be RGB or BGR, got {image_format!r}")
    return str(image_format)


def default_device(device: str | torch.device | None) -> torch.device:
    """``device``, or CUDA where there is one, or the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is not known: cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {chosen}: there are {count} CUDA devices here")
    return chosen
