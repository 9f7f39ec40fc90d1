"""The class layer of a model that starts from a checkpoint: its rows follow the class names."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..config.options import ConfigError
from ..utils.class_names import Classes, differences, listed, order_in, pair_by_name

logger = logging.getLogger(f"detectron2.{__name__}")

_LAYERS = ("cls_logits", "cls_score")  # of this project's heads, of Detectron2's dense ones


def require_same_classes(weights: Mapping[str, Tensor], source: Classes, target: Classes) -> None:
    """For weights that are to fill the model: a class layer for the same classes, in any order.

    Raises:
        ConfigError: the classes differ, as far as both are named.
    """
    if not source.names or not target.names or not _class_tensors(weights):
        return
    if order_in(source.names, target.names) is None:
        raise ConfigError(
            f"train.init_checkpoint={source.owner} is of other classes than {target.owner}: "
            f"{differences(source, target)}. To start from it and learn the new classes, use "
            f"--init-from {source.owner}."
        )


def follow_names(
    model: nn.Module, weights: Mapping[str, Tensor], source: Classes, target: Classes
) -> dict[str, Tensor]:
    """``weights`` with the rows of class layers where the model has the classes of their names.

    Rows of classes that only the model has are the model's own, i.e. fresh. Where names are
    missing on a side the weights are returned as they are: shapes decide.

    Args:
        model: class layers have A * K channels, anchors first (A is 1 without anchors).
        source: the K' classes of ``weights``. target: the K classes of the model.
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
    followed = {name: _rows(own[name], weights[name], pairs, source, target) for name in layers}
    if any(rows is None for rows in followed.values()):
        logger.warning("%s: %s is built otherwise and starts afresh.", source.owner, layers[0])
        return {name: x for name, x in weights.items() if name not in layers}
    _say(pairs, source, target)
    return {**weights, **followed}


def _class_tensors(weights: Mapping[str, Tensor]) -> list[str]:
    return [name for name in weights if name.rpartition(".")[0].rpartition(".")[2] in _LAYERS]


@torch.no_grad()
def _rows(
    fresh: Tensor, saved: Tensor, pairs: Mapping[int, int], source: Classes, target: Classes
) -> Tensor | None:
    """``fresh`` (A * K, ...) with rows of ``saved`` (A * K', ...); None if the rest differs."""
    if len(fresh) % len(target.names) or len(saved) % len(source.names):
        return None
    own = fresh.detach().clone().unflatten(0, (-1, len(target.names)))
    old = saved.unflatten(0, (-1, len(source.names)))
    if own.shape[:1] + own.shape[2:] != old.shape[:1] + old.shape[2:]:
        return None
    if pairs:
        own[:, list(pairs.values())] = old[:, list(pairs)].to(own)
    return own.flatten(0, 1)


def _say(pairs: Mapping[int, int], source: Classes, target: Classes) -> None:
    kept = [target.names[i] for i in sorted(pairs.values())]
    fresh = [name for i, name in enumerate(target.names) if i not in pairs.values()]
    left = [name for i, name in enumerate(source.names) if i not in pairs]
    logger.warning(
        "%s and %s have different classes or another order. Class layer, by name: taken over %s; "
        "fresh %s; left behind %s.",
        *(source.owner, target.owner, listed(kept) or "none", listed(fresh) or "none"),
        listed(left) or "none",
    )
