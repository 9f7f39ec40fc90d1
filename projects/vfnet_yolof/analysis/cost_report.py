"""What the detectors of config files cost, as a table and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate

from ..config.inference import read_inference_config
from ..config.options import ConfigError
from ..config.parts import built, built_model
from ..config.yaml_files import Trust
from ..data.datasets import dataset_records
from ..data.transforms import AugInput
from ..engine.classes import dataset_names
from .compare import write_text
from .cost import Cost, MeanCost, build_without_memory, count, mean_count


def analyze(
    config: str,
    size: tuple[int, int],
    overrides: Sequence[str] = (),
    trust: Trust | None = None,
) -> Cost:
    """Cost of the detector of a config file; arguments as of ``tools/analyze_model.py``.

    Raises:
        FileNotFoundError, ValueError, TypeError: no such file, a wrong override, or no detector
            whose parts can be told apart; the message names it.
    """
    build = read_inference_config(config, overrides, trust).build_model
    try:
        return count(build_without_memory(build), size)
    except TypeError as error:
        raise TypeError(f"{config}: {error}") from error


def analyze_on_images(config: str, cfg: DictConfig, first: int | None = None) -> MeanCost:
    """Mean cost of a detector over its test images, each at its own size and alone in its batch.

    Args:
        config: its name, for messages.
        cfg: the prepared config.
        first: only so many images of the test set, in its order; all by default. YOLOF's paper
            takes the first 100 of COCO's val2017.

    Raises:
        ConfigError: the config has no test set, or does not say how its images are resized.
        FileNotFoundError, ValueError, TypeError: as of :func:`analyze`; a data set that cannot be
            read, or has no images.
    """
    sizes = sizes_of_test_images(config, cfg, first)
    model = build_without_memory(lambda: built_model(cfg.model, config))
    try:
        return mean_count(model, sizes)
    except TypeError as error:
        raise TypeError(f"{config}: {error}") from error


def sizes_of_test_images(
    config: str, cfg: DictConfig, first: int | None = None
) -> Counter[tuple[int, int]]:
    """How many test images have which (height, width) in px when they are resized.

    Arguments and errors as of :func:`analyze_on_images`.
    """
    key, names = "dataloader.test.mapper.augmentations", dataset_names(cfg, "test")
    if not names:
        raise ConfigError(f"{config}: has no dataloader.test.dataset.names; name data by --data.")
    if OmegaConf.select(cfg, key) is None:
        raise ConfigError(f"{config}: has no {key}, which says how images are resized.")
    resize = T.AugmentationList(list(built(key, OmegaConf.select(cfg, key))))
    records = [record for name in names for record in dataset_records(name)][:first]
    if not records:
        raise ConfigError(f"{config}: the test set {', '.join(names)} has no images.")
    sizes: Counter[tuple[int, int]] = Counter()
    for (height, width), number in Counter((x["height"], x["width"]) for x in records).items():
        # A resize is a function of the size alone: once for each, on an image without content.
        resized = AugInput(np.zeros((height, width, 3), np.uint8))
        resize(resized)
        sizes[resized.image.shape[0], resized.image.shape[1]] += number
    return sizes


def table(costs: Mapping[str, Cost]) -> str:
    """Markdown: millions of parameters, 10^9 multiply-adds of each part, anchors or locations."""
    rows = [
        [
            name,
            f"{cost.parameters / 1e6:.2f}",
            *(f"{part.multiply_adds / 1e9:.1f}" for part in cost.parts.values()),
            f"{cost.multiply_adds / 1e9:.1f}",
            f"{sum(cost.anchors):,}" if cost.anchors else "not known",
        ]
        for name, cost in costs.items()
    ]
    figures = ["parameters (M)", "backbone (G)", "neck (G)", "head (G)", "total (G)", "anchors"]
    align = ["left"] + ["right"] * len(figures)
    return tabulate(rows, ["config", *figures], "pipe", disable_numparse=True, colalign=align)


def report(
    configs: Sequence[str],
    size: tuple[int, int],
    overrides: Sequence[str] = (),
    trust: Trust | None = None,
    json_file: str | None = None,
    on_images: Mapping[str, MeanCost] | None = None,
) -> str:
    """The table of several configs; all numbers are written to ``json_file``, if there is one.

    Args:
        on_images: of :func:`analyze_on_images`, by config: a second table.

    Raises:
        OSError, ValueError, TypeError: as of :func:`analyze`, or the file cannot be written.
    """
    costs = {config: analyze(config, size, overrides, trust) for config in configs}
    if json_file:
        content = {
            "size": list(size),
            "configs": {config: cost.as_dict() for config, cost in costs.items()},
        }
        if on_images:
            content["test_images"] = {k: mean.as_dict() for k, mean in on_images.items()}
        write_text(Path(json_file), json.dumps(content, indent=2) + "\n")
    if not on_images:
        return table(costs)
    means = {
        f"{config}, {mean.images} images ({mean.padded_sizes} padded sizes)": mean.cost
        for config, mean in on_images.items()
    }
    height, width = size
    return (
        f"An image of {height} x {width}:\n\n{table(costs)}\n\n"
        f"The mean of test images, each at its own size:\n\n{table(means)}"
    )
