"""What inference needs from a configuration, whether LazyConfig or yacs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.data import transforms as T
from omegaconf import OmegaConf
from torch import nn

from .parts import built, built_model, config_errors
from .read import ConfigSource, ReadConfig, read
from .saved import is_checkpoint, plain
from .yaml_files import Trust


@dataclass(frozen=True)
class InferenceConfig:
    """``build_model`` makes the model on the CPU, with random weights.

    ``augmentations``: those of the test images. ``interpolation``: of their resizing, "pil" or
    "opencv". ``image_format``: the model's channel order, "RGB" or "BGR". ``weights``: the
    checkpoint that the configuration names or comes from, or "". ``dataset_name``: of the test
    set, for class names, or None. ``tested_as``: of :func:`.saved.tested_as`. ``model``: the
    settings that build it, of :func:`.saved.plain`, or None where a file has the model itself.
    """

    build_model: Callable[[], nn.Module]
    augmentations: T.AugmentationList
    interpolation: str
    image_format: str
    weights: str
    dataset_name: str | None
    name: str
    tested_as: dict[str, Any]
    model: Any = None


def read_inference_config(
    config: ConfigSource, overrides: Sequence[str] = (), trust: Trust | None = None
) -> InferenceConfig:
    """What inference needs of a configuration; arguments and errors as of :func:`.read.read`.

    Raises:
        ConfigError: moreover, where the configuration lacks one of these parts.
    """
    found = read(config, overrides, trust=trust)
    with config_errors(found.source):
        return inference_parts(found)


def inference_parts(found: ReadConfig) -> InferenceConfig:
    """What inference needs of a configuration that is read.

    Raises:
        ValueError: it lacks one of these parts.
    """
    cfg, name = found.cfg, found.source
    for key in ("model", "dataloader.test.mapper.augmentations"):
        if OmegaConf.select(cfg, key) is None:
            raise ValueError(f"{name}: has no {key}, which inference needs")
    format_key = "dataloader.train.mapper.image_format"
    if OmegaConf.select(cfg, format_key) is None:
        format_key = "dataloader.test.mapper.image_format"
    names = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    key = "dataloader.test.mapper.augmentations"
    augmentations = built(f"{name}: {key}", OmegaConf.select(cfg, key))
    weights = name if is_checkpoint(name) else OmegaConf.select(cfg, "train.init_checkpoint")
    return InferenceConfig(
        build_model=lambda: built_model(cfg.model, name),
        augmentations=T.AugmentationList(list(augmentations)),
        interpolation=OmegaConf.select(cfg, "dataloader.test.mapper.interpolation") or "pil",
        image_format=_checked_format(OmegaConf.select(cfg, format_key), format_key, name),
        weights=weights or "",
        dataset_name=names if isinstance(names, str) or not names else names[0],
        name=name,
        tested_as=found.tested_as,
        model=plain(cfg.model),
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
    unknown = f"device {str(device)!r} is not known: cpu, cuda or cuda:N"
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(unknown) from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(unknown)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {chosen}: there are {count} CUDA devices here")
    return chosen
