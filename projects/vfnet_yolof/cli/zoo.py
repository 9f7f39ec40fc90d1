"""``vfnet-yolof zoo``: the papers' rows, what is published for them, and whether it holds.

``tools/verify_weights.py`` is the last of these alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config.options import ConfigError
from .arguments import Command, add_device, add_output, add_weights
from .main import told


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="row; without it all are listed")
    add_weights(parser, "checkpoint, or the folder that has the published one; else it is fetched")
    add_output(parser, "file for the converted weights; with --data folder for the detections")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="COCO's folder, with annotations/instances_val2017.json and val2017/: evaluate the "
        "weights, and compare with the published AP",
    )
    parser.add_argument("--expected", type=float, metavar="AP", help="instead of the published AP")
    parser.add_argument("--tolerance", type=float, metavar="AP", help="of the comparison (0.3)")
    add_device(parser)


def _run(args: argparse.Namespace) -> int:
    alone = ("weights", "output", "data", "expected", "tolerance")
    if args.model is None:
        if any(getattr(args, name) is not None for name in alone):
            raise ConfigError("Name a row before the options; `vfnet-yolof zoo` lists them.")
        return _list()
    return _named(_one_row, args)


def _one_row(args: argparse.Namespace) -> int:
    if args.data is not None:
        return _verify(args)
    if args.expected is not None or args.tolerance is not None:
        raise ConfigError("--expected and --tolerance are for the comparison: add --data PATH.")
    if args.output is None and args.weights is not None:
        raise ConfigError("--weights are to be converted or evaluated: add --output or --data.")
    return _convert(args) if args.output else _describe(args.model)


def _list() -> int:
    from tabulate import tabulate

    from ..model_zoo import ROWS

    rows = [
        [name, _ap(row.val), _ap(row.test_dev), row.weights.file if row.weights else ""]
        for name, row in ROWS.items()
    ]
    headers = ["row", "AP val2017", "AP test-dev", "published weights"]
    print(tabulate(rows, headers, disable_numparse=True))
    print("AP as published, in percent; none of it was measured by this project.")
    return 0


def _ap(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _describe(name: str) -> int:
    from ..model_zoo import ROWS, find_row

    row = find_row(name)
    found = ROWS[row]
    print(f"config: {row}.py")
    print(f"published AP: val2017 {_ap(found.val) or '-'}, test-dev {_ap(found.test_dev) or '-'}")
    if found.weights is None:
        print("weights: none are published")
        return 0
    print(f"weights: {found.weights.file}, {(found.weights.addresses or [found.weights.page])[0]}")
    print(f"  AP on val2017 of this file: {_ap(found.weights_val) or '-'}")
    print(f"  SHA-256 begins with: {found.weights.sha256 or '(none published)'}")
    print(f"  images: {found.weights.pipeline}")
    for change in found.weights.overrides:
        print(f"  wants {change}")
    return 0


def _convert(args: argparse.Namespace) -> int:
    from ..config.yaml_files import Trust
    from ..model_zoo import find_trained
    from .weights import convert

    found = find_trained(args.model, args.weights)
    status = convert(found.config, str(found.weights), args.output, found.overrides, Trust())
    for change in found.overrides:
        print(f"to be used with {change}")
    return status


def _verify(args: argparse.Namespace) -> int:
    from detectron2.utils.logger import setup_logger

    from ..model_zoo.verify import TOLERANCE, verify

    setup_logger(name="detectron2")
    result = verify(
        args.model,
        Path(args.data),
        weights=args.weights,
        expected=args.expected,
        tolerance=TOLERANCE if args.tolerance is None else args.tolerance,
        device=args.device,
        output=None if args.output is None else Path(args.output),
    )
    print(f"{args.model}: {result}")
    return 0 if result.passed else 1


def verify_tool(description: str | None, arguments: Sequence[str] | None = None) -> int:
    """``tools/verify_weights.py``; 0: as published, 1: not, 2: could not tell."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", metavar="row", help="row of the model zoo, e.g. vfnet_r50_fpn_1x")
    add(
        "--coco",
        required=True,
        dest="data",
        metavar="DIR",
        help="with annotations/ and val2017/",
    )
    add("--weights", metavar="FILE", help="checkpoint, or the folder that has the published one")
    add("--expected", type=float, metavar="AP", help="compare with this instead of the published")
    add("--tolerance", type=float, metavar="AP", help="default: 0.3")
    add("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    add("--output", metavar="DIR", help="folder of the detections")
    args = parser.parse_args(arguments)
    return told(lambda: _named(_verify, args))


def _named(action: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    try:
        return action(args)
    except KeyError as error:  # no such row
        raise ConfigError(str(error.args[0])) from error


ZOO = Command(
    "The rows of the papers' tables: list them, show one, convert its published weights, or\n"
    "evaluate these and compare with the published AP (exit status 1: more than 0.3 apart).",
    "  %(prog)s\n"
    "  %(prog)s vfnet_r50_fpn_1x --output vfnet_r50.pth\n"
    "  %(prog)s vfnet_r50_fpn_1x --data datasets/coco",
    _add_arguments,
    _run,
)
