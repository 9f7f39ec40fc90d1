"""The number of classes: the same in the model and in the annotations."""

from __future__ import annotations

import logging

from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf

from .options import ConfigError

logger = logging.getLogger(f"detectron2.{__name__}")


def dataset_names(cfg: DictConfig, split: str = "train") -> list[str]:
    """Names of the registered data sets of ``dataloader.<split>``; [] if it uses none."""
    names = OmegaConf.select(cfg, f"dataloader.{split}.dataset.names")
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


def train_class_names(cfg: DictConfig) -> list[str]:
    """Class names of the training set in the order of the model's classes; [] if unknown."""
    names = dataset_names(cfg)
    if not names:
        return []
    return [str(x) for x in MetadataCatalog.get(names[0]).get("thing_classes") or []]


def check_num_classes(cfg: DictConfig, split: str = "train") -> None:
    """``model.num_classes`` against the annotations, whose loader must have been built.

    Raises:
        ConfigError: they differ.
    """
    expected = OmegaConf.select(cfg, "model.num_classes")
    for name in dataset_names(cfg, split):
        if split == "test":
            from vfnet_yolof.data import dataset_class_names

            classes = dataset_class_names(name)
        else:
            classes = MetadataCatalog.get(name).get("thing_classes")
        if classes is None or expected is None:
            logger.warning("Cannot compare the classes of %s with the model's.", name)
        elif len(classes) != expected:
            raise ConfigError(
                f"model.num_classes={expected}, but data set {name!r} has {len(classes)} classes "
                f"({', '.join(list(classes)[:5])}{', ...' if len(classes) > 5 else ''}). "
                f"Set model.num_classes={len(classes)}, or choose the data set that is meant."
            )
