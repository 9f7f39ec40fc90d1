"""Weights to start from, and weights to evaluate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from omegaconf import DictConfig
from torch import Tensor, nn

from ..checkpoint import CheckpointError, Weights, find_weights, load_checkpoint, recognise_layout
from ..checkpoint.backbones import convert_backbone_state_dict, describe_pixels, is_backbone
from ..checkpoint.convert import OWN_LAYOUT, rename
from ..checkpoint.fitting import match_and_report, match_counters, target_shapes
from ..checkpoint.tensors import fill
from ..config.options import ConfigError
from ..utils.class_names import UNKNOWN, Classes
from .checkpoints import BEST, CheckpointFiles
from .classes import checkpoint_classes, class_lookup, follow_names, require_same_classes

logger = logging.getLogger(f"detectron2.{__name__}")


class LoadReport(NamedTuple):
    """Names of tensors."""

    loaded: list[str]
    mismatched: list[str]  # of another shape in the file; the model keeps its own
    missing: list[str]  # in the model only
    unexpected: list[str]  # in the file only


class Evaluated(NamedTuple):
    """What is known of the checkpoint that is evaluated."""

    iteration: int  # the last one before it was written; -1 if unknown
    classes: Classes  # whose names it holds


def load_for_fine_tuning(model: nn.Module, path: str, classes: Classes = UNKNOWN) -> LoadReport:
    """Load every tensor of a checkpoint that fits, and the class layer by class names.

    Rows of the class layer go by class names: see :func:`.classes.follow_names`. Averaged
    weights are preferred where the file has them. ImageNet backbones of other projects are read as
    by :func:`load_initial_weights`.

    Args:
        model: changed in place.
        path: the checkpoint.
        classes: those of the training data.

    Returns:
        What was loaded, and what was not.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it cannot be read, or is of another backbone.
        ConfigError: no tensor fits.
    """
    content = load_checkpoint(path)
    weights = _weights_for(model, content, path)
    weights = follow_names(model, weights, checkpoint_classes(content, path), classes)
    report = _load(model, weights, path)
    for name in report.mismatched:
        logger.warning("%s: %s has another shape and starts afresh", path, name)
    return report


def load_initial_weights(model: nn.Module, path: str, classes: Classes = UNKNOWN) -> LoadReport:
    """Weights of ``train.init_checkpoint``: a whole detector, or an ImageNet backbone.

    A detector must be for the same classes; rows of its class layer go by their names, as in
    :func:`load_for_fine_tuning`.

    Backbones may be files of other projects, as they are (see
    :mod:`vfnet_yolof.checkpoint.backbones`), ``detectron2://`` addresses among them; neck and head
    start afresh then. Other files marked ``matching_heuristics`` have names of their own, which
    Detectron2 matches with the model's.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it cannot be read, or is of another backbone.
        ConfigError: no tensor fits, some have other shapes, or the classes are others.
    """
    content = load_checkpoint(path)
    weights = _weights_for(model, content, path)
    source = checkpoint_classes(content, path)
    require_same_classes(weights, source, classes)
    weights = follow_names(model, weights, source, classes)
    own = model.state_dict()
    other = [k for k, v in weights.items() if k in own and own[k].shape != v.shape]
    if other:
        raise ConfigError(
            f"train.init_checkpoint={path} is of another model: {_short(other)} differ in shape "
            f"({own[other[0]].shape} here, {weights[other[0]].shape} there). To start from it "
            f"with another number of classes, use --weights {path}."
        )
    return _load(model, weights, path)


def _weights_for(model: nn.Module, content: Mapping[str, Any], path: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the model's names, where it is known how to find them.

    Official detectors' files are converted on the way.
    """
    try:
        if is_backbone(content):
            weights, report = convert_backbone_state_dict(content, model)
            logger.info("%s is a backbone; neck and head start afresh.\n%s", path, report.summary())
            if warning := describe_pixels(report, getattr(model, "input_format", None)):
                logger.warning("%s: %s", path, warning)
            return weights
        found = find_weights(content)
        if content.get("matching_heuristics"):
            caffe2 = content.get("__author__") == "Caffe2"
            return align_and_update_state_dicts(
                model.state_dict(), found.tensors, c2_conversion=caffe2
            )
        return _under_own_names(model, found, path)
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error


def _under_own_names(model: nn.Module, found: Weights, path: str) -> dict[str, Tensor]:
    """Converted, unless some names are the model's own or the layout of names is unknown."""
    own = model.state_dict()
    if not own.keys().isdisjoint(found.tensors):
        return found.tensors
    try:
        layout = recognise_layout(found.tensors)
    except CheckpointError:
        return found.tensors
    if layout is OWN_LAYOUT:
        return found.tensors
    target = target_shapes(own)
    weights, report = rename(found, model, target)
    match_and_report(weights, target, report)
    logger.info("%s was converted.\n%s", path, report.summary())
    return weights


def load_checkpoint_for_evaluation(
    model: nn.Module, train: DictConfig, data: Classes = UNKNOWN
) -> Evaluated:
    """Load ``train.init_checkpoint``, or else the best or last checkpoint of the run.

    Args:
        model: changed in place.
        train: the options ``train`` of the config.
        data: classes to evaluate on, which a checkpoint that does not fit is compared with.

    Raises:
        FileNotFoundError: nothing is named and ``output_dir`` has no checkpoint.
        ConfigError: the checkpoint does not have all weights of the model.
    """
    path = train.init_checkpoint or best_or_last(train.output_dir)
    if not path:
        raise FileNotFoundError(
            f"Nothing to evaluate: {train.output_dir} has no checkpoint. "
            "Name one with train.init_checkpoint=FILE."
        )
    content = load_checkpoint(path)
    classes = checkpoint_classes(content, path)
    report = _load(model, _weights_for(model, content, path), path)
    if report.missing or report.mismatched:
        class_lookup(classes, data)  # where it has other classes, that is the reason to give
        raise ConfigError(
            f"{path} is not a checkpoint of this model: {_short(report.missing)} missing, "
            f"{_short(report.mismatched)} of another shape. Is this the config it was trained "
            "with? The number of classes must be the same."
        )
    which = "averaged weights" if "ema" in content else "weights"
    logger.info("Evaluating the %s of %s", which, path)
    iteration = content.get("iteration", -1)
    return Evaluated(iteration if isinstance(iteration, int) else -1, classes)


def best_or_last(output_dir: str) -> str:
    """Path of a run's best checkpoint, else of its last one; "" where there is none."""
    files = CheckpointFiles(output_dir, writable=False)
    best = files.path(BEST)
    return str(best if best.is_file() else files.last() or "")


@torch.no_grad()
def _load(model: nn.Module, weights: Mapping[str, Tensor], path: str) -> LoadReport:
    own = model.state_dict()
    weights = dict(weights)
    match_counters(weights, own)
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    report = LoadReport(
        loaded=sorted(fitting),
        mismatched=sorted(k for k in weights if k in own and k not in fitting),
        missing=sorted(own.keys() - weights.keys()),
        unexpected=sorted(weights.keys() - own.keys()),
    )
    if not fitting:
        raise ConfigError(
            f"No tensor of {path} fits the model. It has {_short(report.unexpected)}, the model "
            f"{_short(report.missing)}. Checkpoints of other projects must be converted first "
            "(tools/convert_checkpoint.py)."
        )
    try:
        fill(model, fitting)
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error
    logger.info("%s: %d of the model's %d tensors loaded", path, len(fitting), len(own))
    if report.missing:
        logger.warning("Not in %s: %s", path, _short(report.missing))
    if report.unexpected:
        logger.warning("Not in the model: %s", _short(report.unexpected))
    return report


def _short(names: Sequence[str], count: int = 5) -> str:
    rest = f", ... ({len(names)} in all)" if len(names) > count else ""
    return (", ".join(names[:count]) + rest) or "nothing"
