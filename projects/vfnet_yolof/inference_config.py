"""What inference needs from a configuration, whether LazyConfig or yacs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.modeling import META_ARCH_REGISTRY
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .configs import find_config
from .yacs import get_cfg_with_keys

Config = str | os.PathLike[str] | DictConfig | CfgNode


@dataclass(frozen=True)
class InferenceConfig:
    """``build_model`` makes the model on the CPU, with random weights.

    ``augmentations``: those of the test images. ``image_format``: the model's channel order, "RGB"
    or "BGR". ``weights``: the checkpoint that the configuration names, or "". ``dataset_name``: of
    the test set, for class names, or None.
    """

    build_model: Callable[[], nn.Module]
    augmentations: T.AugmentationList
    image_format: str
    weights: str
    dataset_name: str | None
    name: str


def read_inference_config(config: Config, overrides: Sequence[str] = ()) -> InferenceConfig:
    """Read a file (``.py``, ``.yaml``; packaged ones by name) or take a loaded configuration.

    ``overrides``: ``key=value`` strings. A given object is not changed by them.
    Raises :class:`FileNotFoundError`, or :class:`ValueError` naming the missing key.
    """
    name = "the given configuration"
    if isinstance(config, str | os.PathLike):
        name = find_config(config)
        config = _load_yacs(name) if _is_yacs_file(name) else LazyConfig.load(name)
    if isinstance(config, CfgNode):
        return _from_yacs(config.clone(), overrides, name)
    if isinstance(config, DictConfig):
        return _from_lazy(config.copy(), overrides, name)
    raise TypeError(
        f"config must be a file, a LazyConfig or a CfgNode, not {type(config).__name__}"
    )


def _is_yacs_file(name: str) -> bool:
    """Both kinds come as ``.yaml``: the training tools save LazyConfigs so."""
    if Path(name).suffix not in (".yaml", ".yml"):
        return False
    with open(name, encoding="utf-8") as stream:
        # unsafe tags (of saved Python objects) are of no interest here, only the top-level keys
        node = yaml.compose(stream, Loader=yaml.SafeLoader)
    keys = {key.value for key, _ in node.value} if isinstance(node, yaml.MappingNode) else set()
    return bool(keys & {"MODEL", "_BASE_", "DATASETS", "INPUT"})


def _load_yacs(name: str) -> CfgNode:
    cfg = get_cfg_with_keys()
    cfg.merge_from_file(name)
    return cfg


def _from_yacs(cfg: CfgNode, overrides: Sequence[str], name: str) -> InferenceConfig:
    pairs = [override.partition("=") for override in overrides]
    cfg.merge_from_list([part for key, _, value in pairs for part in (key, value)])
    cfg.MODEL.DEVICE = "cpu"
    datasets = cfg.DATASETS.TEST
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    return InferenceConfig(
        build_model=lambda: META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg),
        augmentations=T.AugmentationList([resize] if cfg.INPUT.MIN_SIZE_TEST > 0 else []),
        image_format=_checked_format(cfg.INPUT.FORMAT, "INPUT.FORMAT", name),
        weights=cfg.MODEL.WEIGHTS,
        dataset_name=datasets[0] if datasets else None,
        name=name,
    )


def _from_lazy(cfg: DictConfig, overrides: Sequence[str], name: str) -> InferenceConfig:
    cfg = LazyConfig.apply_overrides(cfg, list(overrides))
    for key in ("model", "dataloader.test.mapper.augmentations"):
        if OmegaConf.select(cfg, key) is None:
            raise ValueError(f"{name}: has no {key}, which inference needs")
    format_key = "dataloader.train.mapper.image_format"
    if OmegaConf.select(cfg, format_key) is None:
        format_key = "dataloader.test.mapper.image_format"
    names = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    augmentations = instantiate(cfg.dataloader.test.mapper.augmentations)
    return InferenceConfig(
        build_model=lambda: instantiate(cfg.model),
        augmentations=T.AugmentationList(list(augmentations)),
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
    """``device``, or CUDA where there is one, or the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
