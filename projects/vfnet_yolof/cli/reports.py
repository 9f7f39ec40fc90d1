"""``vfnet-yolof analyze``, ``diagram`` and ``show-augmentations``, and tools that tabulate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.yaml_files import add_trust_arguments, trust_from
from .arguments import (
    DATA_OPTIONS,
    Command,
    add_data,
    add_model,
    add_output,
)
from .main import told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

    from ..analysis.cost import MeanCost


def _add_size(parser: argparse.ArgumentParser) -> None:
    _add_image_size(parser)
    parser.add_argument("--json", metavar="FILE", help="write all numbers there, too")
    add_trust_arguments(parser)


def _add_image_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(800, 1344),
        metavar=("H", "W"),
        help="of the image in pixels (default: 800 1344)",
    )


def _analyze(
    args: argparse.Namespace,
    configs: Sequence[str],
    changes: Sequence[str],
    on_images: Mapping[str, MeanCost] | None = None,
) -> int:
    from ..analysis.cost_report import report

    size = (args.size[0], args.size[1])
    try:
        print(report(configs, size, changes, trust_from(args), args.json, on_images))
    except TypeError as error:  # no detector whose parts can be told apart
        raise ValueError(str(error)) from error
    return 0


def analyze_tool(description: str | None, arguments: Sequence[str] | None = None) -> int:
    """``tools/analyze_model.py``; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", help="files, or names of packaged configs")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", help="changes to every config"
    )
    _add_size(parser)
    args = parser.parse_args(arguments)
    return told(lambda: _analyze(args, args.configs, args.set), refused=1)


def _add_analyze(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "MODEL", "more of them")
    _add_size(parser)
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="mean over the first N test images of the data, or of the config's own without any "
        "(0: all; all where data are given)",
    )
    add_data(parser)


def _run_analyze(args: argparse.Namespace) -> int:
    from ..analysis.cost_report import analyze_on_images

    if args.images is not None and args.images < 0:
        raise ValueError(f"--images {args.images}: a number of test images, or 0 for all")
    configs, changes = named_configs(args), list(args.changes)
    read_with_data = args.images is not None or _names_data(args)
    found = [(config, _read_with_data(args, config)) for config in configs if read_with_data]
    on_data = found if _names_data(args) else []
    if on_data:
        changes.append(f"model.num_classes={on_data[0][1].model.num_classes}")
    try:
        means = {
            config: analyze_on_images(config, cfg, args.images or None) for config, cfg in found
        }
    except TypeError as error:  # no detector whose parts can be told apart
        raise ValueError(str(error)) from error
    status = _analyze(args, configs, changes, means)
    for config, cfg in on_data:
        print("\n" + _boxes_report(config, cfg))
    return status


def _names_data(args: argparse.Namespace) -> bool:
    return any(getattr(args, key) is not None for key in DATA_OPTIONS)


def _read_with_data(args: argparse.Namespace, config: str) -> DictConfig:
    """A whole config with the data of the command line, or those that it remembers."""
    from ..config.read import RunFlags, read

    given = {key: getattr(args, key) for key in DATA_OPTIONS}
    return read(config, args.changes, RunFlags(**given), trust_from(args)).cfg


def _boxes_report(config: str, cfg: DictConfig) -> str:
    """How large the boxes are to the model, and which of them it can hardly learn."""
    import numpy as np

    from ..analysis.cost import build_without_memory
    from ..config.parts import built_model
    from ..engine.box_advice import advice, box_sides

    sides = box_sides(cfg)
    if not len(sides):
        return f"{config}: no boxes at the size of the test images"
    low, middle, high = np.quantile(np.sqrt(sides.prod(axis=1)), [0.02, 0.5, 0.98])
    found = advice(cfg, build_without_memory(lambda: built_model(cfg.model, config)))
    lines = [
        f"{config}: at the size of the test images, 96 % of the boxes are {low:.0f} to {high:.0f} "
        f"px large (root of the area), half of them below {middle:.0f} px."
    ]
    return "\n".join([*lines, *(found or ["The detector suits them."])])


def _add_diagram(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_output(parser, "the diagram, a .png or .svg; the graph goes beside it, as .json", True)
    _add_image_size(parser)
    add_trust_arguments(parser)


def _run_diagram(args: argparse.Namespace) -> int:
    from ..analysis import figures
    from ..analysis.diagram import diagram

    path = figures.checked_output(args.output)
    (config,) = named_configs(args)
    size = (args.size[0], args.size[1])
    drawn = diagram(config, size, args.changes, trust_from(args))
    graph = figures.write(drawn, path, {"model": config})
    print(drawn.sentence)
    print(f"diagram: {path}; its graph: {graph}")
    return 0


def _add_show(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_output(parser, "folder for the images, made if needed", required=True)
    parser.add_argument("-n", "--count", type=int, default=16, help="how many (16)")
    parser.add_argument("--seed", type=int, default=0, help="of the training they belong to (0)")
    add_data(parser)
    add_trust_arguments(parser)


def _run_show(args: argparse.Namespace) -> int:
    from ..analysis.training_images import save_training_pictures

    (config,) = named_configs(args)
    cfg = _read_with_data(args, config)
    paths = save_training_pictures(cfg, args.output, count=args.count, seed=args.seed)
    print(f"{len(paths)} images in {args.output}")
    return 0


def named_configs(args: argparse.Namespace) -> list[str]:
    """All MODELs as they are named, runs by their config."""
    from ..engine.named_model import named_model

    names = (args.model, *args.operands)
    return [x.config if x.run else name for name in names for x in [named_model(name)]]


def matching_tool(description: str | None, arguments: Sequence[str] | None = None) -> int:
    """``tools/matching_statistics.py``; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="file or name of a packaged config")
    add("--weights", help="checkpoint of a trained model, for a second set of predictions")
    add("--json", required=True, help="annotations in COCO's format")
    add("--images", required=True, help="folder of the images")
    add("--output", required=True, metavar="PREFIX", help="writes PREFIX.png, .json and .md")
    add(
        "--sides",
        type=float,
        nargs="+",
        default=[32.0, 96.0],
        help="square roots of the areas between classes of sizes, px (default: COCO's, 32 96)",
    )
    add("--batch-size", type=int, default=4, help="images that the model sees at once")
    add("--seed", type=int, default=0, help="of the weights at initialisation")
    add("overrides", nargs="*", metavar="key=value", help="changes to the config")
    add_trust_arguments(parser)
    args = parser.parse_args(arguments)
    if args.batch_size < 1 or sorted(set(args.sides)) != args.sides or args.sides[0] <= 0:
        parser.error("--batch-size must be positive, --sides positive and ascending")
    return told(lambda: _matching(args), refused=1)


def _matching(args: argparse.Namespace) -> int:
    from ..analysis.matching_report import write_study

    try:
        print(write_study(args))
    except TypeError as error:  # no detector with anchors
        raise ValueError(str(error)) from error
    return 0


def model_zoo_tool(description: str | None, arguments: Sequence[str] | None = None) -> int:
    """``tools/make_model_zoo.py``; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only tell whether it is current")
    args = parser.parse_args(arguments)
    from ..analysis.model_zoo_page import outdated, write_page

    if not args.check:
        write_page()
        return 0
    names = outdated()
    for name in names:
        print(f"configs/{name} is out of date; run python tools/make_model_zoo.py", file=sys.stderr)
    return int(bool(names))


ANALYZE = Command(
    "Parameters and multiply-adds of detectors, by part, and their anchors.\n\n"
    "G are 10^9 multiply-adds of convolutions (deformable ones and their offsets' among them) and\n"
    "matrix products for one image. The affine part of frozen batch norms is not counted.\n"
    "Anchors are those of the image on all levels; of a detector with one box for each location,\n"
    "its locations.\n"
    "With data, also the mean over their test images, each at its own resized and padded size,\n"
    "and which of their boxes a detector can hardly learn.",
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py gfl/gfl_r50_fpn_1x.py --json cost.json\n"
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py model.num_classes=3 --size 608 608\n"
    "  %(prog)s gfl/gfl_small.py --data datasets/birds\n"
    "  %(prog)s yolof/yolof_r50_c5_1x.py --images 100 (the first 100 of COCO's val2017)",
    _add_analyze,
    _run_analyze,
)
DIAGRAM = Command(
    "Draw the blocks of a detector and what flows between them, from the built model: backbone,\n"
    "neck and head, with the sizes of the feature maps, and what the head predicts.",
    "  %(prog)s vfnet/vfnet_r50_fpn_1x.py --output vfnet.svg\n"
    "  %(prog)s yolof/yolof_r50_c5_1x.py model.backbone.dilations=[1,2,3,4] --output yolof.png",
    _add_diagram,
    _run_diagram,
)
SHOW = Command(
    "Draw training images as they are augmented, with their boxes, as the model gets them.",
    "  %(prog)s yolof/yolof_r50_c5_1x.py --data datasets/birds --output augmented\n"
    "  %(prog)s vfnet/vfnet_small_shapes.py --output augmented --count 8",
    _add_show,
    _run_show,
)
