"""``vfnet-yolof figure``: the figures of the papers, of one's own detectors and data."""

from __future__ import annotations

import argparse
import importlib
import logging
import shlex
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config.options import ConfigError
from ..config.yaml_files import add_trust_arguments, trust_from
from ..utils import threads
from .arguments import (
    DATA_OPTIONS,
    MODEL_HELP,
    Command,
    add_data,
    add_device,
    add_other_test_settings,
    add_output,
    add_weights,
)
from .main import PROG

if TYPE_CHECKING:
    from ..analysis.subject import Subject


class Figure(NamedTuple):
    """Where a figure is found, and what it takes.

    Attributes:
        summary: what it shows, with the paper's number.
        module: below ``analysis.figures``. function: called with the subjects and the options.
        models: least and most trained models that it is about.
        options: fields of ``analysis.figures.Options`` that it uses.
    """

    summary: str
    module: str
    function: str
    models: tuple[int, int] = (1, 1)
    options: tuple[str, ...] = ()


FIGURES = {
    "scores": Figure(
        "GFL 2b: class score, predicted quality and IoU of positives; several MODELs",
        *("quality", "scores", (1, 4)),
    ),
    "targets": Figure(
        "GFL 5c: distances to predict, in strides, and how many are beyond reg_max",
        *("quality", "targets"),
    ),
    "labels": Figure(
        "GFL 8 and 9: centerness and IoU as labels of the positives", *("quality", "labels")
    ),
    "maps": Figure(
        "VFNet 1 and 2: an image and the head's scores at each location, by level",
        *("images", "maps", (1, 1), ("image",)),
    ),
    "star": Figure(
        "VFNet 1 and 3: first box, nine star points and refined box",
        *("images", "star", (1, 1), ("image", "score_threshold", "count")),
    ),
    "detections": Figure(
        "VFNet 4: what is found, with the ground truth beside",
        *("images", "detections", (1, 1), ("score_threshold",)),
    ),
    "background": Figure(
        "GFL 2a: background with the highest predicted quality",
        *("background", "background", (1, 1), ("count",)),
    ),
    "sides": Figure(
        "GFL 3: the predicted distributions of the sides of boxes",
        *("images", "sides", (1, 1), ("image", "score_threshold", "count")),
    ),
    "scales": Figure(
        "YOLOF 4: the scales of objects, and those that a dilated encoder covers",
        *("scales", "scales"),
    ),
    "qfl": Figure(
        "GFL 5a: the quality focal loss for several beta",
        *("losses", "qfl", (0, 0), ("betas", "quality")),
    ),
    "dfl": Figure(
        "GFL 5b: distributions of the same mean, and the loss that tells them apart",
        *("distributions", "dfl", (0, 0), ("target",)),
    ),
    "tradeoff": Figure(
        "GFL 7, YOLOF 1 and 3: AP against time or multiply-adds, of --points FILE.json",
        *("tradeoff", "tradeoff", (0, 0), ("points", "published", "against")),
    ),
}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    width = max(map(len, FIGURES))
    names = "\n".join(f"  {name:<{width}}  {x.summary}" for name, x in FIGURES.items())
    parser.description = f"{parser.description}\n\n{names}"
    parser.add_argument("figure", metavar="NAME", nargs="?", help="one of the above")
    parser.add_argument(
        *("operands",),
        nargs="*",
        default=[],
        metavar="MODEL | key=value",
        help=f"{MODEL_HELP}, with weights; key=value: changes to its config",
    )
    parser.set_defaults(takes_operands=True)
    parser.add_argument("--list", action="store_true", help="only list the figures")
    add_weights(parser, "checkpoint; by default the run's best or last one")
    add_output(parser, "the figure, a .png or .svg; its numbers go beside it, as .json")
    add_images(parser)
    group = parser.add_argument_group("of single figures")
    add = group.add_argument
    add("--image", type=int, metavar="N", help="maps, star, sides: of which test image, from 0 (0)")
    add(
        *("--score-threshold",),
        type=float,
        metavar="SCORE",
        help="star, sides, detections: leave out what scores lower (0.3)",
    )
    add("--count", type=int, metavar="N", help="star, sides, background: draw at most so many (8)")
    add("--betas", type=float, nargs="+", help="qfl: exponents (0 0.5 1 2 4)")
    add("--quality", type=float, help="qfl: the label (0.5)")
    add("--target", type=float, help="dfl: the distance to predict, in bins from 0 to 16 (5.6)")
    add("--points", nargs="+", metavar="FILE", help="tradeoff: JSON of your own measurements")
    add(
        *("--published",),
        nargs="+",
        choices=("vfnet", "gfl", "yolof"),
        help="tradeoff: add what these papers print, drawn hollow",
    )
    add("--against", choices=("time", "multiply-adds"), help="tradeoff: what AP is drawn against")
    add_data(parser, ["val"])
    add_other_test_settings(parser)
    add_device(parser)
    add_trust_arguments(parser)


def add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=int, metavar="N", help="only the first N of the test images"
    )


def _run(args: argparse.Namespace) -> int:
    if args.list:
        print("\n".join(f"{name}: {x.summary}" for name, x in FIGURES.items()))
        return 0
    if args.figure not in FIGURES:
        said = "Name a figure" if args.figure is None else f"There is no figure {args.figure!r}"
        raise ConfigError(f"{said}; there are {', '.join(FIGURES)}.")
    if args.output is None:
        raise ConfigError("--output is missing, the figure's file, a .png or .svg.")
    figure = FIGURES[args.figure]
    _require_models(args, figure)
    from ..analysis import figures

    path = figures.checked_output(args.output)
    options = _options(args, figure)
    subjects = open_subjects(args, args.operands)
    module = importlib.import_module(f"..analysis.figures.{figure.module}", __package__)
    drawn = getattr(module, figure.function)(subjects, options)
    facts: dict[str, Any] = {"figure": args.figure, "command": command_line()}
    facts["models"] = [{"model": x.name, "weights": x.weights} for x in subjects]
    numbers = figures.write(drawn, path, facts)
    print(drawn.sentence)
    print(f"figure: {path}; its numbers: {numbers}")
    return 0


def _require_models(args: argparse.Namespace, figure: Figure) -> None:
    """Raises ConfigError where there are too few or too many models for the figure."""
    least, most = figure.models
    count = len(args.operands)
    if not least <= count <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise ConfigError(f"figure {args.figure} takes {wanted} MODEL, got {count}: name as many.")
    if args.weights and count != 1:
        raise ConfigError("--weights is for a single MODEL: name checkpoints or runs as MODELs.")
    if args.changes and not count:
        raise ConfigError(f"figure {args.figure} has no MODEL for {args.changes[0]} to change.")


def _options(args: argparse.Namespace, figure: Figure) -> Any:
    """What was given of ``analysis.figures.Options``; errors of what the figure does not use."""
    from ..analysis.figures import Options

    given = {x.name: getattr(args, x.name, None) for x in fields(Options)}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in chosen:
        if name not in figure.options:
            raise ConfigError(
                f"--{name.replace('_', '-')} means nothing to figure {args.figure}: leave it out."
            )
        if isinstance(chosen[name], list):
            chosen[name] = tuple(chosen[name])
    return Options(**chosen)


def open_subjects(args: argparse.Namespace, models: list[str]) -> list[Subject]:
    """The trained models, with the data and the changes of the command line."""
    if not models:
        return []
    from ..analysis.subject import open_subject
    from ..config.inference import default_device
    from ..config.read import RunFlags

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    if default_device(args.device).type == "cpu" and (said := threads.use_free_cores()):
        print(said, file=sys.stderr)
    given: dict[str, Any] = {key: getattr(args, key, None) for key in DATA_OPTIONS}
    return [
        open_subject(
            model,
            args.weights,
            args.changes,
            RunFlags(**given, eval_only=True),
            device=args.device,
            images=args.images,
            trust=trust_from(args),
            other_test_settings=args.other_test_settings,
        )
        for model in models
    ]


def command_line() -> str:
    """As it was typed, for the record."""
    return f"{PROG} {shlex.join(sys.argv[1:])}"


FIGURE = Command(
    "Draw a figure of the papers, of your own detectors and data: a PNG or SVG, and its numbers\n"
    "beside it as JSON.",
    "  %(prog)s --list\n  %(prog)s qfl --output qfl.svg\n"
    "  %(prog)s maps output/first --data datasets/birds --image 3 --output maps.png\n"
    "  %(prog)s tradeoff --points measured.json --published gfl --output tradeoff.svg",
    _add_arguments,
    _run,
)
