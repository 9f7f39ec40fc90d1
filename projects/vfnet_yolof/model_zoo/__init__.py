"""The rows of the papers by name: their configurations, and models with the published weights.

::

    from vfnet_yolof import model_zoo

    cfg = model_zoo.get_config("vfnet_r50_fpn_ms_2x")
    model = model_zoo.get("vfnet_r50_fpn_ms_2x", trained=True)
    test_images = model_zoo.get_config("vfnet_r50_fpn_ms_2x", trained=True).dataloader.test
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from ..checkpoint import convert_checkpoint, load_checkpoint, load_into
from ..checkpoint.convert import file_sha256
from ..config.read import read
from ..utils import __version__
from .files import WeightsUnavailableError, cache_dir, check_hash, find_weights
from .table import ROWS, Pipeline, Row, Weights

logger = logging.getLogger(f"detectron2.{__name__}")

__all__ = [
    "ROWS",
    "Pipeline",
    "Row",
    "Weights",
    "WeightsUnavailableError",
    "cache_dir",
    "converted_weights",
    "find_row",
    "find_source",
    "find_trained",
    "get",
    "get_config",
    "is_published",
    "license_of",
]


def find_row(name: str) -> str:
    """Full name of a row: ``vfnet_r50_fpn_1x`` -> ``vfnet/vfnet_r50_fpn_1x``.

    Folder, ``configs/`` and ``.py`` may be given or left out.
    Raises :class:`KeyError` naming the nearest rows.
    """
    wanted = name.removeprefix("configs/").removesuffix(".py")
    for row in ROWS:
        if wanted in (row, row.partition("/")[2]):
            return row
    stems = [row.partition("/")[2] for row in ROWS]
    near = difflib.get_close_matches(wanted.rpartition("/")[2], stems, n=3, cutoff=0.3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise KeyError(f"no row {name!r} in the model zoo{hint}")


def get_config(name: str, trained: bool = False) -> DictConfig:
    """The configuration of a row, with dataloader, optimizer, schedule and ``train`` section.

    Args:
        name: as :func:`find_row` takes it.
        trained: as the row's published weights are to be used. Where other code than the paper
            authors' has trained them, they want other resizing or padding than the row has; the
            changes are ``ROWS[row].weights.overrides``.

    Raises:
        KeyError: no such row. WeightsUnavailableError: nothing is published for it.
    """
    row = find_row(name)
    return read(f"{row}.py", _published(row).overrides if trained else ()).cfg


def get(
    name: str,
    trained: bool = False,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """The detector of a row, in evaluation mode.

    Args:
        name: as :func:`find_row` takes it.
        trained: load the published weights; otherwise they are random. Images have to come to
            it as in its training: ``get_config(name, trained=True).dataloader.test.mapper``.
        weights: a checkpoint, or a folder that has the published file, to take instead of looking
            for it; implies ``trained``. Any layout that the converter knows.
        device: where to put the model.

    Raises:
        KeyError: no such row. CheckpointError: a damaged file, or one of another model.
        WeightsUnavailableError: the published weights are not here and cannot be fetched.
    """
    row = find_row(name)
    # Before the model is built, so that what cannot be had is known at once.
    source = find_source(row, weights) if trained or weights is not None else None
    published = source is not None and is_published(row, source)
    model: nn.Module = instantiate(get_config(row, trained=published).model)
    if source is not None:
        converted = converted_weights(row, model, source)
        load_into(model, converted)
    return model.eval().to(device)


def converted_weights(name: str, model: nn.Module, source: str | os.PathLike[str]) -> Path:
    """The checkpoint ``source`` under this project's names, converted the first time only.

    It lies in the cache, under a name that stands for the config, the source's hash and this
    package's version. Raises :class:`CheckpointError` unless ``source`` fills ``model``, the row's.
    """
    stem = Path(name).stem
    converted = cache_dir() / "converted" / f"{stem}-{file_sha256(source)[:16]}-{__version__}.pth"
    if not converted.is_file():
        _, report = convert_checkpoint(source, converted, model)
        logger.info("Converted %s: %s", source, report.summary())
    return converted


def is_published(name: str, source: str | os.PathLike[str]) -> bool:
    """Whether ``source`` is the row's published file, under any name, or was converted from it."""
    weights = ROWS[find_row(name)].weights
    if weights is None:
        return False

    def named(file: object, digest: object) -> bool:
        return file == weights.file or bool(weights.sha256 and str(digest)[:8] == weights.sha256)

    if Path(source).name == weights.file or named(None, file_sha256(source)):
        return True
    origin = load_checkpoint(source).get("source")  # what a converted file was made of
    return isinstance(origin, Mapping) and named(origin.get("file"), origin.get("sha256"))


def license_of(source: str | os.PathLike[str]) -> str | None:
    """SPDX name of the licence of a published checkpoint or what was converted from it, if known.

    Files that MMDetection publishes are known by their hashes; it states Apache-2.0 for them.
    """
    origin = load_checkpoint(source).get("source")
    digests = [file_sha256(source)]
    if isinstance(origin, Mapping):
        digests.append(str(origin.get("sha256")))
    published = (row.weights for row in ROWS.values() if row.weights and row.weights.addresses)
    known = tuple(x.sha256 for x in published if x.sha256)
    return "Apache-2.0" if any(x.startswith(known) for x in digests) else None


def find_source(name: str, weights: str | os.PathLike[str] | None = None) -> Path:
    """The file that has a row's weights; ``weights`` and errors as of :func:`get`."""
    row = find_row(name)
    published = ROWS[row].weights
    path = None if weights is None else Path(weights).expanduser()
    if path is not None and path.is_file():
        if published is not None and path.name == published.file:
            check_hash(path, published)
        return path
    if path is not None and not path.is_dir():
        raise FileNotFoundError(f"no file or folder {path}")
    published = _published(row)
    if path is not None and not (path / published.file).is_file():
        raise FileNotFoundError(f"{path} does not have {published.file}")
    return find_weights(published, [] if path is None else [path])


class Trained(NamedTuple):
    """A row with weights. config: its packaged name. overrides: what the weights want changed."""

    config: str
    weights: Path
    overrides: Sequence[str]


def find_trained(name: str, weights: str | os.PathLike[str] | None = None) -> Trained:
    """What predicts as the paper's model; arguments and errors as of :func:`get`."""
    row = find_row(name)
    source = find_source(row, weights)
    changes = _published(row).overrides if is_published(row, source) else ()
    return Trained(f"{row}.py", source, changes)


def _published(row: str) -> Weights:
    weights = ROWS[row].weights
    if weights is None:
        raise WeightsUnavailableError(f"no weights are published for {row}; give a file of yours")
    return weights
