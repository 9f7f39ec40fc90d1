"""Figure 6 of YOLOF's paper on a data set in COCO's format."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

from ..checkpoint import load_into
from ..config.inference import InferenceConfig, read_inference_config
from ..config.yaml_files import trust_from
from ..data import DetectionMapper, get_dataset_dicts, register_user_datasets
from ..modeling.meta_arch import AnchorDetector
from ..utils.files import write_atomically
from ..utils.state import seed_everything
from .compare import write_text
from .matching import SizeCounts, compared_matchers, matching_statistics

Statistics = Mapping[str, Mapping[str, SizeCounts]]  # by origin of the predictions, then by rule
COUNTS = {"positives": "before the ignore rule", "kept": "after the ignore rule"}


def size_names(sides: Sequence[float]) -> list[str]:
    """A name for each class of sizes between these side lengths, in pixels."""
    if list(sides) == [32, 96]:
        return ["small", "medium", "large"]
    between = [f"{a:g}-{b:g} px" for a, b in zip(sides, sides[1:], strict=False)]
    return [f"< {sides[0]:g} px", *between, f">= {sides[-1]:g} px"]


def as_table(statistics: Statistics, sizes: Sequence[str]) -> str:
    """Markdown: positives for each object, after those that the rule keeps, by size."""
    rows = []
    for origin, rules in statistics.items():
        for rule, counts in rules.items():
            both = zip(_per_object(counts, "positives"), _per_object(counts, "kept"), strict=True)
            rows.append([origin, rule, *(f"{a:.2f} / {b:.2f}" for a, b in both)])
    first = next(iter(next(iter(statistics.values())).values()))
    headers = [f"{size} ({n})" for size, n in zip(sizes, first.boxes.tolist(), strict=True)]
    return tabulate(rows, ["predictions", "rule", *headers], "pipe", disable_numparse=True)


def as_json(statistics: Statistics, sizes: Sequence[str], num_images: int) -> str:
    """All counts as they are."""
    content = {
        origin: {
            rule: {k: v.tolist() for k, v in counts._asdict().items()}
            for rule, counts in rules.items()
        }
        for origin, rules in statistics.items()
    }
    record = {"images": num_images, "sizes": list(sizes), "predictions": content}
    return json.dumps(record, indent=2) + "\n"


def draw(statistics: Statistics, sizes: Sequence[str]) -> Figure:
    """A row of two plots for each origin of the predictions, a bar for each size and rule."""
    figure = Figure(figsize=(9, 3.2 * len(statistics)), layout="constrained")
    axes = figure.subplots(len(statistics), len(COUNTS), squeeze=False, sharey="row")
    width = 0.8 / len(sizes)
    for row, (origin, rules) in zip(axes, statistics.items(), strict=True):
        for plot, (name, title) in zip(row, COUNTS.items(), strict=True):
            for i, size in enumerate(sizes):
                heights = [_per_object(counts, name)[i] for counts in rules.values()]
                bars = plot.bar([x + i * width for x in range(len(rules))], heights, width)
                plot.bar_label(bars, fmt="%.1f", fontsize=7)
                bars.set_label(size)
            middle = (len(sizes) - 1) * width / 2
            plot.set_xticks([x + middle for x in range(len(rules))], list(rules))
            plot.set_title(f"predictions {origin}, {title}", fontsize=9)
        row[0].set_ylabel("positive anchors per object")
    axes[0][-1].legend(title="objects", fontsize=8)
    return figure


def _per_object(counts: SizeCounts, name: str) -> list[float]:
    return (getattr(counts, name) / counts.boxes.clamp(min=1)).tolist()


class Batches:
    """The images of a data set as the configuration's test shows them, with their boxes.

    Crowd regions are left out. Iterating gives lists of Detectron2's input dicts.
    """

    def __init__(self, config: InferenceConfig, json_file: str, images: str, size: int) -> None:
        found = register_user_datasets(None, None, json_file, images)
        assert found.val_name is not None  # as a file is given
        self.num_classes = found.num_classes
        self.records = get_dataset_dicts(found.val_name)
        self.size = size
        self.mapper = DetectionMapper(
            True,
            augmentations=[config.augmentations],
            image_format=config.image_format,
            interpolation=config.interpolation,
        )

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for first in range(0, len(self.records), self.size):
            yield [self.mapper(x) for x in self.records[first : first + self.size]]


def study(args: argparse.Namespace) -> tuple[Statistics, int]:
    """Match with fresh predictions and, where weights are given, with trained ones.

    Raises:
        FileNotFoundError, ValueError, TypeError, CheckpointError, ImageReadError: something is
            wrong with the arguments; the message names it.
    """
    config = read_inference_config(args.config_file, args.overrides, trust_from(args))
    batches = Batches(config, args.json, args.images, args.batch_size)
    seed_everything(args.seed)
    model = config.build_model()
    if not isinstance(model, AnchorDetector):
        raise TypeError(f"{args.config_file} is no detector with anchors")
    if model.num_classes < batches.num_classes:
        raise ValueError(
            f"{args.json} has {batches.num_classes} classes, the model {model.num_classes}: "
            f"set model.num_classes={batches.num_classes}"
        )
    edges = [side**2 for side in args.sides]
    statistics = {
        "at initialisation": matching_statistics(model, batches, compared_matchers(), edges)
    }
    if args.weights:
        load_into(model, args.weights)
        statistics["after training"] = matching_statistics(
            model, batches, compared_matchers(), edges
        )
    return statistics, len(batches.records)


def write_study(args: argparse.Namespace) -> str:
    """:func:`study`, with ``args.output`` + ``.png``, ``.json`` and ``.md`` written; the table."""
    statistics, num_images = study(args)
    sizes = size_names(args.sides)
    table = as_table(statistics, sizes)
    write_text(f"{args.output}.json", as_json(statistics, sizes, num_images))
    write_text(f"{args.output}.md", table + "\n")
    plot = io.BytesIO()
    draw(statistics, sizes).savefig(plot, format="png", dpi=120)
    write_atomically(f"{args.output}.png", lambda file: file.write(plot.getvalue()))
    return table
