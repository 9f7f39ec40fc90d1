"""Classes of data, model and checkpoint: compared by name; the class layer follows the names."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ..checkpoint import find_class_names
from ..config.options import ConfigError
from ..data import dataset_class_names
from ..utils.class_names import UNKNOWN, Classes, differences, listed, order_in, pair_by_name

logger = logging.getLogger(f"detectron2.{__name__}")

_LAYERS = ("cls_logits", "cls_score")  # of this project's heads, of Detectron2's dense ones


def dataset_names(cfg: DictConfig, split: str = "train") -> list[str]:
    """Names of the registered data sets of ``dataloader.<split>``; [] if it has none."""
    names = OmegaConf.select(cfg, f"dataloader.{split}.dataset.names")
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


def dataset_classes(cfg: DictConfig, split: str = "train") -> Classes:
    """The classes of ``dataloader.<split>``; the data set is loaded if they are not known yet.

    Raises:
        FileNotFoundError: the data set has no annotation file.
        ConfigError: no such data set, or it cannot be read.
    """
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
    """Compare ``model.num_classes`` with the annotations.

    Raises:
        ConfigError: they differ.
    """
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
    """Refuse to resume a run with other classes, or in another order than the optimizer's state.

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
        f"another train.output_dir with --weights {saved.owner}, which goes by the names."
    )


def class_lookup(model: Classes, data: Classes) -> list[int] | None:
    """Index in the data of each class of the model; None where the indices are the same.

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
            "or train for these with --weights."
        )
    logger.info(
        "%s and %s have the same classes, not alike in order or spelling (%s): detections are "
        "mapped by name.",
        *(model.owner, data.owner, differences(model, data)),
    )
    return None if lookup == list(range(len(lookup))) else lookup


def require_same_classes(weights: Mapping[str, Tensor], source: Classes, target: Classes) -> None:
    """Refuse weights whose class layer is for other classes; the order may be another.

    Raises:
        ConfigError: the classes differ, as far as both are named.
    """
    if not source.names or not target.names or not _class_tensors(weights):
        return
    if order_in(source.names, target.names) is None:
        raise ConfigError(
            f"train.init_checkpoint={source.owner} is of other classes than {target.owner}: "
            f"{differences(source, target)}. To start from it and learn the new classes, use "
            f"--weights {source.owner}."
        )


def follow_names(
    model: nn.Module, weights: Mapping[str, Tensor], source: Classes, target: Classes
) -> dict[str, Tensor]:
    """Order the rows of class layers as the model has the classes of the same names.

    Rows of classes that only the model has are those of the fresh model. Where a side has no class
    names, the weights are returned as they are: shapes decide.

    Args:
        model: class layers have A * K channels, anchors first (A is 1 without anchors), or
            A * (K + 1) where the head has a class for background, which is the last.
        weights: of a checkpoint, under the model's names.
        source: the K' classes of ``weights``.
        target: the K classes of the model.

    Returns:
        The weights to load; without those of the class layer where it is built otherwise.
    """
    own = model.state_dict()
    layers = [name for name in _class_tensors(weights) if name in own]
    if not source.names or not target.names:
        unnamed = target if source.names else source
        if layers and all(weights[name].shape == own[name].shape for name in layers):
            logger.warning(
                "%s has no class names: the class layer of %s is taken over as it is, its classes "
                "in the same order.",
                *(unnamed.owner, source.owner),
            )
        return dict(weights)
    if source.names == target.names:
        return dict(weights)
    if not layers:
        logger.warning(
            "%s has other classes than %s and no class layer (%s) whose rows could follow them.",
            *(source.owner, target.owner, ", ".join(_LAYERS)),
        )
        return dict(weights)
    pairs = pair_by_name(source.names, target.names)
    counts = len(target.names), len(source.names)
    row_pairs = dict(pairs)
    if getattr(getattr(model, "head", None), "has_background", False):
        row_pairs[counts[1]] = counts[0]
        counts = counts[0] + 1, counts[1] + 1
    followed: dict[str, Tensor] = {}
    for name in layers:
        rows = _rows(own[name], weights[name], row_pairs, *counts)
        if rows is None:
            logger.warning("%s: %s is built otherwise and starts afresh.", source.owner, layers[0])
            return {name: x for name, x in weights.items() if name not in layers}
        followed[name] = rows
    _log_rows(pairs, source, target)
    return {**weights, **followed}


def _class_tensors(weights: Mapping[str, Tensor]) -> list[str]:
    return [name for name in weights if name.rpartition(".")[0].rpartition(".")[2] in _LAYERS]


@torch.no_grad()
def _rows(
    fresh: Tensor, saved: Tensor, pairs: Mapping[int, int], own_count: int, saved_count: int
) -> Tensor | None:
    """``fresh`` (A * own_count, ...) with rows of ``saved``; None if the rest differs."""
    if len(fresh) % own_count or len(saved) % saved_count:
        return None
    own = fresh.detach().clone().unflatten(0, (-1, own_count))
    old = saved.unflatten(0, (-1, saved_count))
    if own.shape[:1] + own.shape[2:] != old.shape[:1] + old.shape[2:]:
        return None
    if pairs:
        own[:, list(pairs.values())] = old[:, list(pairs)].to(own)
    return own.flatten(0, 1)


def _log_rows(pairs: Mapping[int, int], source: Classes, target: Classes) -> None:
    kept = [target.names[i] for i in sorted(pairs.values())]
    fresh = [name for i, name in enumerate(target.names) if i not in pairs.values()]
    left = [name for i, name in enumerate(source.names) if i not in pairs]
    logger.warning(
        "%s and %s have different classes or another order. Class layer, by name: taken over %s; "
        "fresh %s; left behind %s.",
        *(source.owner, target.owner, listed(kept) or "none", listed(fresh) or "none"),
        listed(left) or "none",
    )
