"""The classes of the data against those of the model: as many, and the same ones by name."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import find_class_names
from ..config.options import ConfigError
from ..utils.class_names import UNKNOWN, Classes, differences, order_in

logger = logging.getLogger(f"detectron2.{__name__}")


def dataset_names(cfg: DictConfig, split: str = "train") -> list[str]:
    """Names of the registered data sets of ``dataloader.<split>``; [] if it uses none."""
    names = OmegaConf.select(cfg, f"dataloader.{split}.dataset.names")
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


def dataset_classes(cfg: DictConfig, split: str = "train") -> Classes:
    """The classes of ``dataloader.<split>``; the data set is loaded where only that tells them.

    Raises:
        FileNotFoundError: the data set has no annotation file.
        ConfigError: no such data set, or it cannot be read.
    """
    from vfnet_yolof.data import dataset_class_names

    names = dataset_names(cfg, split)
    if not names:
        return UNKNOWN
    try:
        classes = dataset_class_names(names[0])
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"dataloader.{split}: {error.args[0] if error.args else error}"
        ) from error
    return Classes([str(name) for name in classes], f"data set {names[0]!r}")


def checkpoint_classes(content: Mapping[str, Any], path: str) -> Classes:
    """The classes that a loaded checkpoint file names."""
    return Classes(find_class_names(content) or [], path)


def class_record(cfg: DictConfig) -> dict[str, Any]:
    """What checkpoints keep of the training data: names and category ids in the model's order."""
    classes = dataset_classes(cfg)
    ids: Mapping[Any, int] = {}
    if classes.names:
        metadata = MetadataCatalog.get(dataset_names(cfg)[0])
        ids = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    ordered = sorted(ids, key=ids.__getitem__)
    return {
        "class_names": classes.names,
        # plain values only: checkpoints are read without running code
        "category_ids": [int(x) if isinstance(x, numbers.Integral) else str(x) for x in ordered],
    }


def check_num_classes(cfg: DictConfig, split: str = "train") -> None:
    """``model.num_classes`` against the annotations.

    Raises:
        ConfigError: they differ.
    """
    from vfnet_yolof.data import dataset_class_names

    expected = OmegaConf.select(cfg, "model.num_classes")
    for name in dataset_names(cfg, split):
        classes = dataset_class_names(name)
        if not classes or expected is None:
            logger.warning("Cannot compare the classes of %s with the model's.", name)
        elif len(classes) != expected:
            raise ConfigError(
                f"model.num_classes={expected}, but data set {name!r} has {len(classes)} classes "
                f"({', '.join(list(classes)[:5])}{', ...' if len(classes) > 5 else ''}). "
                f"Set model.num_classes={len(classes)}, or choose the data set that is meant."
            )


def require_resumed_classes(saved: Classes, present: Classes) -> None:
    """A run goes on with its own classes in their order, which the optimizer's state is in.

    Raises:
        ConfigError: names or their order differ.
    """
    if not saved.names or not present.names or saved.names == present.names:
        return
    same = order_in(saved.names, present.names) is not None
    raise ConfigError(
        f"--resume: {saved.owner} has {'these classes otherwise' if same else 'other classes'}: "
        f"{differences(saved, present)}. The optimizer's state cannot follow. Resume with the "
        "annotations of the first run (their category ids give the order), or start a new run in "
        f"another train.output_dir with --init-from {saved.owner}, which goes by the names."
    )


def class_lookup(model: Classes, data: Classes) -> list[int] | None:
    """For each class of the model its number in the data; None where they are counted alike.

    Raises:
        ConfigError: they do not have the same classes, as far as names tell.
    """
    if not data.names:
        return None
    if not model.names:
        logger.warning(
            "%s has no class names: its classes are taken to be those of %s, in that order.",
            *(model.owner, data.owner),
        )
        return None
    if model.names == data.names:
        return None
    lookup = order_in(model.names, data.names)
    if lookup is None:
        raise ConfigError(
            f"{model.owner} and {data.owner} have different classes: {differences(model, data)}. "
            "Detections are counted by class name: give the categories of the annotations the "
            "names that the model was trained with, evaluate on data that has the same classes, "
            "or train for these with --init-from."
        )
    logger.info(
        "%s and %s have the same classes, not alike in order or spelling (%s): detections are "
        "mapped by name.",
        *(model.owner, data.owner, differences(model, data)),
    )
    return None if lookup == list(range(len(lookup))) else lookup


class EvaluatorByName(DatasetEvaluator):
    """Gives another evaluator the detections with the numbers that the data set's classes have.

    Args:
        evaluator: the other one.
        lookup: class of the data for each of the model's, see :func:`class_lookup`.
    """

    def __init__(self, evaluator: DatasetEvaluator, lookup: Sequence[int]) -> None:
        self._evaluator = evaluator
        self._lookup = torch.tensor(lookup)

    def reset(self) -> None:
        self._evaluator.reset()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        mapped = [{**output, "instances": self._mapped(output["instances"])} for output in outputs]
        self._evaluator.process(inputs, mapped)

    def _mapped(self, instances: Instances) -> Instances:
        found = Instances(instances.image_size, **instances.get_fields())
        classes = instances.pred_classes
        found.pred_classes = self._lookup.to(classes.device)[classes].to(classes.dtype)
        return found

    def evaluate(self) -> Any:
        return self._evaluator.evaluate()
